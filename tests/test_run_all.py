"""Real processes, killed for real: the runner, and what it runs."""

import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import run_all
from conftest import (
    TINY,
    assert_refused,
    call,
    ctrl_c_after,
    finish,
    numbers,
    result,
    start,
)
from machinery import diagnosis
from machinery.lock import owner_of

import keras
import numpy as np
import pytest
from PIL import Image

BASELINE1 = ("run_all.py", "baseline1")
THREE = ("--sample", "--limit", 100, "--epochs", 3)


def wait_for(path, process):
    deadline = time.monotonic() + 200
    while not path.exists():
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.01)


def commands(folder):
    """The commands that the runner has started, from the log."""
    lines = (folder / "runs" / "baseline1.log").read_text().splitlines()
    return [line for line in lines if "experiments/baseline1.py" in line and "Next:" not in line]


def test_runs_two_seeds_at_once_and_skips_what_is_finished(tmp_path):
    arguments = (*BASELINE1, "--seeds", "0,1", "--jobs", 2, *TINY, "--epochs", 1)
    ended = call(*arguments, cwd=tmp_path)
    assert ended.code == 0, ended
    assert "running: baseline1 (0 of 1 epochs), baseline1, seed 1 (0 of 1 epochs)" in ended.output
    assert "baseline1 (2 seeds)" in ended.output
    results = tmp_path / "runs/baseline1.json", tmp_path / "runs/seed_1/baseline1.json"
    assert [result(path)["settings"]["seed"] for path in results] == [0, 1]
    cores = max(1, len(os.sched_getaffinity(0)) // 2)
    assert [result(path)["hardware"]["cores"] for path in results] == [cores, cores]

    before = [path.read_bytes() for path in results]
    assert call(*arguments, cwd=tmp_path).code == 0
    assert [path.read_bytes() for path in results] == before
    assert len(commands(tmp_path)) == 1


def test_run_that_ends_with_other_images_is_not_made_again_and_again(tmp_path):
    """A picture may have been added to the folder since the runner looked at it."""
    arguments = [*map(str, TINY), "--epochs", "1", "--out", str(tmp_path / "runs")]
    job = run_all.Job("baseline1", 0, None, arguments, sha256={"of": "images before"})

    def train(job, words):
        return SimpleNamespace(returncode=call(*words, cwd=tmp_path).code)

    job.start(SimpleNamespace(start=train))
    job.note_end()
    assert result(job.files.result)["finished"] and not job.is_finished()
    assert "ended with other images or settings" in job.failure


def test_run_whose_log_can_not_be_written_stops_no_others(tmp_path):
    (tmp_path / "runs" / "baseline2.log").mkdir(parents=True)
    assert call("experiments/baseline1.py", *TINY, "--epochs", 1, cwd=tmp_path).code == 0
    ended = call(*BASELINE1, "baseline2", *TINY, "--epochs", 1, cwd=tmp_path)
    assert_refused(ended, "baseline2 (0 of 1 epochs): ", "baseline2.log: Is a directory")
    assert "baseline1 " in ended.output


def test_options_that_no_run_could_take_are_refused_at_once(tmp_path):
    ended = call(*BASELINE1, "--sample", "--limit", 60_000, cwd=tmp_path)
    assert_refused(ended, "60000 is above the 1,000 training images")
    assert not list(tmp_path.glob("runs/*"))


def test_tells_how_to_show_all_runs_in_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    train = "experiments/baseline1.py", *TINY, "--epochs", 1
    assert call(*train, cwd=tmp_path).code == 0  # so that there is nothing left to run
    ended = call(*BASELINE1, *TINY, "--epochs", 1, "--tensorboard", cwd=tmp_path)
    assert "TensorBoard: tensorboard --logdir runs/tensorboard\n" in ended.output


def test_runs_every_fold(tmp_path):
    ended = call(*BASELINE1, "--folds", 2, "--jobs", 1, *TINY, "--epochs", 1, cwd=tmp_path)
    assert ended.code == 0, ended
    assert "running: baseline1, fold 1/2 (0 of 1 epochs)" in ended.output
    assert "baseline1 (2 folds)" in ended.output
    found = [result(path)["settings"]["fold"] for path in tmp_path.glob("runs/*/baseline1.json")]
    assert sorted(found) == ["1/2", "2/2"]
    assert f"Doubtful labels: {Path('runs/baseline1_doubtful.png')}\n" in ended.output
    assert Image.open(tmp_path / "runs/baseline1_doubtful.png").width > 800


def test_label_is_doubted_by_networks_that_have_not_seen_it(tmp_path, monkeypatch, sample):
    """A wrong label in each of two classes. Of image 5, the networks only know what it is not."""
    n = 40
    images, labels = sample.x_train[:n], np.arange(n) % 10
    wrong = labels.copy()
    wrong[[3, 18]] = 7, 0
    np.savez(tmp_path / "mine.npz", x_train=images, y_train=wrong, x_test=images, y_test=labels)
    arguments = ("--folds", 2, "--data", "mine.npz", "--epochs", 1, "--out", ".")

    def predict(model, batches, verbose):
        # By the image alone, as a network does.
        shown = np.concatenate([255 * batches[index][0] for index in range(len(batches))])
        places = [
            next(at for at in range(n) if np.array_equal(images[at], image))
            for image in shown.round().astype(np.uint8)
        ]
        told = np.float32(0.01) + 0.9 * np.eye(10, dtype=np.float32)[labels[places]]
        told[np.equal(places, 5)] = np.eye(10)[5] == 0
        return told / told.sum(axis=1, keepdims=True)

    monkeypatch.setattr(keras.Model, "predict", predict)
    drawn = []
    monkeypatch.setattr(diagnosis, "draw_images", lambda *arguments: drawn.append(arguments))
    for fold in ("1/2", "2/2"):
        ended = call("experiments/baseline1.py", "--fold", fold, *arguments[2:], cwd=tmp_path)
        assert ended.code == 0, ended.errors
    ended = call("run_all.py", "baseline1", *arguments, cwd=tmp_path)
    assert ended.code == 0, ended.errors
    ((shown, captions, title, path),) = drawn
    np.testing.assert_array_equal(shown[:3], images[[3, 18, 5]])
    assert captions[:2] == ["image 3: horse?\ncat 91 %", "image 18: airplane?\nship 91 %"]
    folds = [result(tmp_path / f"fold_{k}_of_2/baseline1.json") for k in (1, 2)]
    assert sum(fold["fold_accuracy"] for fold in folds) / 2 == 92.5  # 3 of 40 are wrong
    assert path == Path("baseline1_doubtful.png") and "2 folds" in title


def test_predictions_of_a_fold_that_are_missing_or_damaged_are_told(tmp_path):
    for fold in ("1/2", "2/2"):
        ended = call("experiments/baseline1.py", "--fold", fold, *TINY, "--epochs", 1, cwd=tmp_path)
        assert ended.code == 0, ended.errors
    arguments = ("--folds", 2, *TINY, "--epochs", 1)
    predictions = tmp_path / "runs/fold_2_of_2/baseline1.predictions.npy"
    predictions.write_bytes(predictions.read_bytes()[:-9])
    assert_refused(call(*BASELINE1, *arguments, cwd=tmp_path), predictions.name, "damaged")
    for others in (np.full((9, 10), 0.1), np.full((10, 10), 1)):  # too few; not probabilities
        np.save(predictions, others)
        assert_refused(call(*BASELINE1, *arguments, cwd=tmp_path), predictions.name, "instead of")
    predictions.unlink()
    assert_refused(call(*BASELINE1, *arguments, cwd=tmp_path), predictions.name, "missing")


def test_killed_run_is_resumed(tmp_path):
    process = start(*BASELINE1, *THREE, cwd=tmp_path)
    wait_for(tmp_path / "runs/baseline1.checkpoint.keras", process)
    os.kill(owner_of(tmp_path / "runs/baseline1.lock"), signal.SIGKILL)
    ended = finish(process)
    assert ended.code == 0, ended
    assert [line.endswith("--resume") for line in commands(tmp_path)] == [False, True]
    assert len(numbers(tmp_path / "runs/baseline1.csv")) == 3


def test_killed_runner_waits_for_the_run_it_has_left_behind(tmp_path):
    process = start(*BASELINE1, *THREE, cwd=tmp_path)
    wait_for(tmp_path / "runs/baseline1.checkpoint.keras", process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    ended = call(*BASELINE1, *THREE, cwd=tmp_path)
    assert ended.code == 0, ended
    assert len(commands(tmp_path)) == 1
    assert result(tmp_path / "runs/baseline1.json")["epochs_trained"] == 3


def test_runner_that_is_told_to_end_leaves_no_run_behind(tmp_path):
    process = start(*BASELINE1, *TINY, "--epochs", 1000, cwd=tmp_path)
    wait_for(tmp_path / "runs/baseline1.checkpoint.keras", process)
    process.terminate()
    ended = finish(process)
    assert ended.code == 130 and "To go on, run the same command." in ended.errors
    assert owner_of(tmp_path / "runs/baseline1.lock") is None


def test_failed_run_is_told_and_the_others_go_on(tmp_path):
    with ctrl_c_after(1):  # unfinished, and of other settings: in the way
        call("experiments/baseline1.py", *TINY, "--epochs", 2, cwd=tmp_path)
    arguments = ("run_all.py", "baseline1", "baseline2", *TINY, "--epochs", 1)
    ended = call(*arguments, cwd=tmp_path)
    assert ended.code == 2
    assert "baseline1 (0 of 1 epochs): exit code 2, see runs/baseline1.log" in ended.errors
    assert result(tmp_path / "runs/baseline2.json")["finished"]


def test_damaged_history_of_one_run_stops_no_other(tmp_path):
    arguments = (*TINY, "--epochs", 1)
    assert call("experiments/baseline1.py", *arguments, cwd=tmp_path).code == 0
    (tmp_path / "runs/baseline1.csv").write_text("damaged")
    ended = call(*BASELINE1, "baseline2", *arguments, cwd=tmp_path)
    assert ended.code == 0, ended
    assert result(tmp_path / "runs/baseline2.json")["finished"]


@pytest.fixture
def small_disk(tmp_path):
    """A function that mounts runs/ as a disk of so many megabytes, or makes it larger."""
    folder = tmp_path / "runs"
    folder.mkdir()

    def of_megabytes(size):
        options = f"{'remount,' if os.path.ismount(folder) else ''}size={size}m"
        mount = ["mount", "-t", "tmpfs", "-o", options, "none", folder]
        mounted = subprocess.run(mount, capture_output=True)
        if mounted.returncode:
            pytest.skip(f"needs to mount a file system: {mounted.stderr.decode()}")

    yield of_megabytes
    if os.path.ismount(folder):
        subprocess.run(["umount", folder], check=True)


def test_full_disk_loses_one_epoch(tmp_path, small_disk):
    whole = call("experiments/baseline1.py", *THREE, "--out", "whole", cwd=tmp_path)
    assert whole.code == 0, whole.errors
    checkpoint = 2 * 4 * result(tmp_path / "whole/baseline1.json")["parameters"] / 2**20
    small_disk(round(1.5 * checkpoint))  # room for one, not for two
    ended = call(*BASELINE1, *THREE, cwd=tmp_path)
    assert ended.code == 2 and "of 3 epochs): exit code 2, see runs/baseline1.log" in ended.errors
    assert "No space left" in (tmp_path / "runs/baseline1.log").read_text()
    small_disk(round(10 * checkpoint))
    ended = call(*BASELINE1, *THREE, cwd=tmp_path)
    assert ended.code == 0, ended
    assert "Resuming after epoch 1 of 3" in (tmp_path / "runs/baseline1.log").read_text()
    assert numbers(tmp_path / "runs/baseline1.csv") == numbers(tmp_path / "whole/baseline1.csv")


def test_lost_checkpoint_begins_one_run_again(tmp_path):
    with ctrl_c_after(1):
        assert call("experiments/baseline1.py", *THREE, cwd=tmp_path).code == 130
    for path in (tmp_path / "runs").glob("*checkpoint*"):
        path.unlink()
    ended = call(*BASELINE1, *THREE, cwd=tmp_path)
    assert ended.code == 0, ended
    assert len(numbers(tmp_path / "runs/baseline1.csv")) == 3


def test_runs_where_the_system_pins_no_process(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.delattr(os, "sched_setaffinity")
    ended = call(*BASELINE1, "--jobs", 1, *TINY, "--epochs", 1, cwd=tmp_path)
    assert ended.code == 0, ended
    assert result(tmp_path / "runs/baseline1.json")["finished"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["baseline9"], "no experiment baseline9"),
        (["--seeds", "0,one"], "--seeds"),
        (["--jobs", "0"], "--jobs"),
        (["--jobs", "10000"], "--jobs"),
        (["--seed", "1"], "--seeds"),
        (["--epochs", "0"], "--epochs"),
        (["--folds", "1"], "--folds"),
        (["--fold", "1/5"], "--folds"),
        (["--folds", "5", "--validation", "holdout"], "exclude each other"),
        (["--ray", "--tensorboard"], "exclude each other"),
    ],
)
def test_senseless_options_are_refused(tmp_path, arguments, reason):
    assert_refused(call("run_all.py", *arguments, cwd=tmp_path), reason)
