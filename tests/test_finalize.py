import os
import re

import harness
from conftest import ROOT, TINY, assert_refused, call, ctrl_c_after, result
from experiments import EXPERIMENTS
from machinery.lock import only_owner

import numpy as np
import pytest

ONE = (*TINY, "--epochs", 1)


@pytest.fixture(scope="module")
def finalized(tmp_path_factory):
    """A folder with the final model of a tiny run, and what finalize.py printed."""
    folder = tmp_path_factory.mktemp("finalized")
    ended = call("finalize.py", *ONE, cwd=folder)
    assert ended.code == 0, ended.errors
    return folder, ended.output


def test_model_of_baseline3_is_saved(finalized):
    folder, _ = finalized
    assert 4.2e6 < (folder / "final_model.h5").stat().st_size < 4.6e6
    recorded = result(folder / "runs" / "final_model.json")
    assert recorded["settings"]["experiment"] == "baseline3"
    assert recorded["name"] == "final_model" and recorded["finished"]


def test_next_commands_are_suggested_on_the_same_images(finalized):
    assert finalized[1].endswith(
        f"Next:            python {ROOT}/evaluate.py --sample\n"
        f"Then:            python {ROOT}/predict.py\n"
    )


def test_all_experiments_are_offered(tmp_path):
    ended = call("finalize.py", "--help", cwd=tmp_path)
    assert ended.code == 0
    assert all(re.search(rf"\b{name}\b", ended.output) for name in EXPERIMENTS)


def test_any_experiment_is_taken_and_the_earlier_model_kept(tmp_path):
    (tmp_path / "my.h5").write_text("earlier")
    arguments = (*ONE, "--experiment", "baseline1", "--model", "my.h5")
    ended = call("finalize.py", *arguments, cwd=tmp_path)
    assert ended.code == 0, ended.errors
    recorded = result(tmp_path / "runs" / "final_model.json")
    assert recorded["settings"]["experiment"] == "baseline1"
    (kept,) = (tmp_path / "earlier").iterdir()
    assert kept.read_text() == "earlier" and f"Earlier model:   earlier/{kept.name}" in ended.output
    assert f"python {ROOT}/predict.py --model my.h5\n" in ended.output


def test_interrupted_run_is_resumed(tmp_path):
    two = (*TINY, "--epochs", 2, "--experiment", "baseline1")
    with ctrl_c_after(1):
        assert call("finalize.py", *two, cwd=tmp_path).code == 130
    assert not (tmp_path / "final_model.h5").exists()
    ended = call("finalize.py", *two, "--resume", cwd=tmp_path)
    assert "Resuming after epoch 1 of 2" in ended.output, ended.errors
    assert (tmp_path / "final_model.h5").exists()


def test_model_and_result_are_saved_before_the_picture_is_drawn(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError("disk full")

    monkeypatch.setattr(harness, "summarize_diagnostics", full)
    arguments = (*ONE, "--experiment", "baseline1")
    assert_refused(call("finalize.py", *arguments, cwd=tmp_path), "disk full")
    assert result(tmp_path / "runs" / "final_model.json")["finished"]
    assert call("evaluate.py", "--sample", cwd=tmp_path).code == 0


def test_model_of_a_finished_run_that_is_gone_is_missed(tmp_path):
    arguments = (*ONE, "--experiment", "baseline1")
    call("finalize.py", *arguments, cwd=tmp_path)
    assert call("finalize.py", *arguments, "--resume", cwd=tmp_path).code == 0
    (tmp_path / "final_model.h5").unlink()
    ended = call("finalize.py", *arguments, "--resume", cwd=tmp_path)
    assert_refused(ended, "model final_model.h5 is gone", "without --resume")


def test_model_file_has_one_owner(tmp_path):
    with only_owner(tmp_path / "final_model.h5.lock", "the model"):
        ended = call("finalize.py", *ONE, "--out", "another", cwd=tmp_path)
    assert_refused(ended, f"final_model.h5 belongs to process {os.getpid()}")


def test_left_overs_of_a_killed_process_are_removed(tmp_path):
    (tmp_path / ".final_model.123.h5").write_text("half")
    call("finalize.py", *ONE, "--experiment", "baseline1", cwd=tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["final_model.h5", "runs"]


def test_speedrun_is_tested_as_it_is_saved(tmp_path, sample):
    """With one view of an image, which is what the saved model looks at."""
    few = {name: array[:100] for name, array in sample.arrays().items()}
    np.savez(tmp_path / "few.npz", **few)
    arguments = ("--epochs", 1, "--batch-size", 50, "--experiment", "speedrun")
    ended = [
        call("finalize.py", "--data", "few.npz", *arguments, cwd=tmp_path),
        call("evaluate.py", "--data", "few.npz", cwd=tmp_path),
    ]
    accuracies = [re.search(r"^> (\S+)", each.output, re.M)[1] for each in ended]
    assert accuracies[0] == accuracies[1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--model", "model.keras"), "must end in .h5"),
        (("--model", "/dev/null/model.h5"), "can't write to /dev/null"),
        (("--experiment", "baseline9"), "baseline9"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, arguments, reason):
    assert_refused(call("finalize.py", *ONE, *arguments, cwd=tmp_path), reason)
