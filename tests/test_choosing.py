"""The page on choosing: its script, without the runs that it is about."""

import runpy

from conftest import ROOT, assert_refused, call

import numpy as np

SCRIPT = "docs/choosing.py"


def test_missing_runs_are_told(tmp_path):
    ended = call(SCRIPT, cwd=tmp_path)
    assert_refused(ended, "there is no finished run runs/choosing/holdout/baseline2", "choosing.md")


def test_accuracy_that_was_chosen_by_is_too_high_and_any_other_is_not():
    choose_and_report = runpy.run_path(ROOT / SCRIPT)["choose_and_report"]
    chance = np.random.default_rng(0)
    equal = chance.random((6, 2000)) < 0.5  # six that are all right half of the time
    errors = [choose_and_report(equal, chance, 100) for _ in range(500)]
    of_chosen, of_any, lost = np.mean(errors, axis=0)
    assert of_chosen > 4 and abs(of_any) < 0.5 and lost > 0.5


def test_who_is_better_by_far_is_chosen_without_loss():
    choose_and_report = runpy.run_path(ROOT / SCRIPT)["choose_and_report"]
    chance = np.random.default_rng(0)
    right = chance.random((3, 2000)) < np.array([[0.2], [0.9], [0.2]])
    assert choose_and_report(right, chance, 100)[2] == 0
