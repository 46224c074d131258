"""How a run begins, breaks off, is resumed, and what it leaves behind."""

import contextlib
import errno
import json
import os
import pickle
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from functools import partial
from pathlib import Path

import harness
import machinery.run
from conftest import (
    BLUE,
    OFFLINE,
    ORANGE,
    ROOT,
    assert_refused,
    call,
    colours,
    ctrl_c_after,
    interrupt_after_first_epoch,
    moments,
    numbers,
    result,
    rewritten_weights,
    rewritten_zip,
    start,
    tiny_network,
    train,
)
from harness import Experiment
from machinery import files
from machinery.checkpoint import load_checkpoint
from machinery.lock import only_owner

import keras
import numpy as np
import pytest

# The experiment with most that is random: initial weights, order, dropout, augmentation.
NAME = "dropout_augmentation"
RANDOM = f"experiments/{NAME}.py"
FOUR = ("--sample", "--limit", 50, "--epochs", 4)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A whole run of four epochs: its folder, and what it printed."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    ended = call(RANDOM, *FOUR, cwd=folder)
    assert ended.code == 0, ended.errors
    return folder / "runs", ended.output


def test_progress_tells_the_time_left_for_the_whole_run(uninterrupted):
    left = re.findall(r"^About [\dmin ]*\d+ s left\. Epoch (\d)/4$", uninterrupted[1], re.M)
    assert left == ["2", "3", "4"]


def test_same_seed_gives_the_same_numbers(uninterrupted, tmp_path):
    call(RANDOM, *FOUR[:-1], 2, cwd=tmp_path)
    whole = numbers(uninterrupted[0] / f"{NAME}.csv")
    assert numbers(tmp_path / f"runs/{NAME}.csv") == whole[:2]


def test_another_seed_gives_other_numbers(uninterrupted, tmp_path):
    call(RANDOM, *FOUR[:-1], 1, "--seed", 1, cwd=tmp_path)
    whole = numbers(uninterrupted[0] / f"{NAME}.csv")
    assert numbers(tmp_path / f"runs/seed_1/{NAME}.csv")[0] != whole[0]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a run of four epochs that was killed (-9) after the first."""
    folder = tmp_path_factory.mktemp("killed")
    process = start(RANDOM, *FOUR, cwd=folder)
    checkpoint = folder / "runs" / f"{NAME}.checkpoint.keras"
    ended = interrupt_after_first_epoch(process, signal.SIGKILL, checkpoint)
    assert ended.code == -signal.SIGKILL
    return folder


def test_new_run_does_not_overwrite_an_unfinished_one(killed):
    before = (killed / "runs" / f"{NAME}.json").read_bytes()
    assert_refused(call(RANDOM, *FOUR, cwd=killed), "not finished", "--resume")
    assert (killed / "runs" / f"{NAME}.json").read_bytes() == before


def test_resume_with_other_settings_is_refused(killed):
    ended = call(RANDOM, *FOUR[:-1], 5, "--batch-size", 9, "--resume", cwd=killed)
    assert_refused(ended, "add --epochs 4, add --batch-size 16")


@pytest.mark.parametrize("finished", [None, "2026-01-02T03:04:05"])
def test_resume_with_other_images_is_refused(killed, sample, tmp_path, finished):
    settings = result(killed / "runs" / f"{NAME}.json") | {"finished": finished}
    settings["settings"]["sample"] = False
    settings["settings"]["batch_size"] = 64
    (tmp_path / f"{NAME}.json").write_text(json.dumps(settings))
    np.savez(tmp_path / "other.npz", **sample.arrays() | {"x_test": sample.x_test[::-1]})
    arguments = ("--data", "other.npz", *FOUR[1:], "--out", ".", "--resume")
    assert_refused(call(RANDOM, *arguments, cwd=tmp_path), "other images", "--data")


@pytest.mark.parametrize(("images", "published"), [("--sample", 99.9), ("--data", None)])
def test_what_is_published_stands_beside_cifar10_alone(tmp_path, sample, images, published):
    """Not beside other images of ten classes, of the same names, too."""
    np.savez(tmp_path / "other.npz", **sample.arrays() | {"x_test": sample.x_test[::-1]})
    which = ["--sample"] if images == "--sample" else ["--data", "other.npz"]
    experiment = Experiment(tiny_network, epochs=1, published_accuracy=99.9)
    train(experiment, *which, "--limit", 20, cwd=tmp_path)
    assert result(tmp_path / "runs" / "mine.json")["published_accuracy"] == published


def test_comparison_names_unfinished_runs_and_those_on_the_sample(killed):
    ended = call("compare.py", cwd=killed)
    (row,) = [line for line in ended.output.splitlines() if line.startswith(NAME)]
    assert "85.88 %" in row and "of 4" in row
    assert "unfinished" in row and "sample" in row


def test_killed_run_resumes_as_if_nothing_had_happened(killed, uninterrupted):
    (killed / "runs" / f".{NAME}.checkpoint.123.keras").write_text("half")
    ended = call(RANDOM, *FOUR, "--resume", cwd=killed)
    assert ended.code == 0, ended.errors
    assert re.search(r"Resuming after epoch [1-3] of 4", ended.output)
    assert numbers(killed / f"runs/{NAME}.csv") == numbers(uninterrupted[0] / f"{NAME}.csv")
    loss = result(killed / f"runs/{NAME}.json")["test_loss"]
    assert loss == result(uninterrupted[0] / f"{NAME}.json")["test_loss"]
    assert sorted(path.suffix for path in (killed / "runs").glob(f"*{NAME}*")) == [
        ".csv", ".json", ".png"
    ]  # fmt: skip


def test_ctrl_c_says_how_to_resume(tmp_path):
    process = start("experiments/baseline1.py", *FOUR[:-1], 1000, cwd=tmp_path)
    checkpoint = tmp_path / "runs" / "baseline1.checkpoint.keras"
    ended = interrupt_after_first_epoch(process, signal.SIGINT, checkpoint)
    assert ended.code == 130
    assert "Traceback" not in ended.errors and "--resume" in ended.errors
    saved = int(re.search(r"(\d+) of 1000 epochs are saved", ended.errors)[1])
    # Ctrl-C may come between the two writes at the end of an epoch: the numbers are one ahead.
    assert saved <= len(numbers(tmp_path / "runs" / "baseline1.csv")) <= saved + 1


# From here on a tiny network will do.

ONE = ("--sample", "--limit", 20, "--epochs", 1)


def files_of(folder):
    return sorted(path.name for path in (folder / "runs").iterdir() if path.is_file())


def mine():
    return Experiment(tiny_network, 100)


def test_resuming_nothing_is_refused(tmp_path):
    assert_refused(train(mine(), *ONE, "--resume", cwd=tmp_path), "nothing to resume")


def test_finished_run_is_kept_when_it_is_run_again(tmp_path):
    train(mine(), *ONE, "--batch-size", 1, cwd=tmp_path)
    ended = train(mine(), *ONE, "--batch-size", 2, cwd=tmp_path)
    assert "Moved to runs/earlier: mine" in ended.output
    assert result(tmp_path / "runs" / "mine.json")["settings"]["batch_size"] == 2
    (earlier,) = (tmp_path / "runs" / "earlier").glob("mine-*.json")
    assert result(earlier)["settings"]["batch_size"] == 1
    assert earlier.with_suffix(".png").exists() and earlier.with_suffix(".csv").exists()


def test_nothing_is_lost_when_the_picture_cannot_be_drawn(monkeypatch, tmp_path):
    def full(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(harness, "summarize_diagnostics", full)
        assert_refused(train(mine(), *ONE, cwd=tmp_path), "disk full")
    accuracy = result(tmp_path / "runs" / "mine.json")["test_accuracy"]
    assert not (tmp_path / "runs" / "mine.png").exists()

    ended = train(mine(), *ONE, "--resume", cwd=tmp_path)
    assert ended.code == 0 and "nothing to resume" in ended.output
    assert f"> {accuracy:.3f} (on 20 training images" in ended.output
    assert {BLUE, ORANGE} <= colours(tmp_path / "runs" / "mine.png")
    assert files_of(tmp_path) == ["mine.csv", "mine.json", "mine.png"]


def test_run_killed_after_its_last_epoch_can_be_resumed(monkeypatch, tmp_path):
    with ctrl_c_after(1):
        assert train(mine(), *ONE, cwd=tmp_path).code == 130
    assert result(tmp_path / "runs" / "mine.json")["finished"] is None
    ended = train(mine(), *ONE, "--resume", cwd=tmp_path)
    assert "Resuming after epoch 1 of 1" in ended.output
    assert files_of(tmp_path) == ["mine.csv", "mine.json", "mine.png"]


THREE = (*ONE[:-1], 3)


@pytest.fixture
def interrupted(tmp_path):
    """The folder of a run that was interrupted after two of three epochs."""
    with ctrl_c_after(2):
        assert train(mine(), *THREE, cwd=tmp_path).code == 130
    return tmp_path / "runs"


@pytest.fixture(scope="module")
def three_epochs(tmp_path_factory):
    """The numbers of such a run that was not interrupted."""
    folder = tmp_path_factory.mktemp("three")
    train(mine(), *THREE, cwd=folder)
    return numbers(folder / "runs" / "mine.csv")


@contextlib.contextmanager
def disk(image, folder):
    """Mount the file system in a file; skip the test where that is not allowed."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"needs to mount a file system: {mounted.stderr.decode()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(not shutil.which("mkfs.ext4"), reason="needs ext4")
def test_nothing_is_lost_when_the_power_fails(tmp_path, three_epochs):
    image = tmp_path / "disk.img"
    with open(image, "wb") as file:
        file.truncate(64 * 2**20)
    subprocess.run(["mkfs.ext4", "-q", "-F", image], check=True)
    with disk(image, tmp_path / "disk") as folder:
        with ctrl_c_after(2):
            train(mine(), *THREE, cwd=folder)
        # What has reached the disk, without what the system was going to write later.
        shutil.copyfile(image, tmp_path / "after.img")
    with disk(tmp_path / "after.img", tmp_path / "after") as folder:
        ended = train(mine(), *THREE, "--resume", cwd=folder)
        assert "Resuming after epoch 2 of 3" in ended.output, ended.errors
        assert numbers(folder / "runs" / "mine.csv") == three_epochs


def result_in(runs):
    return result(runs / "mine.json") if (runs / "mine.json").exists() else {}


@pytest.fixture(scope="module")
def killed_at(tmp_path_factory):
    """Folders of a run of three epochs that was killed, one for each state that it goes through.

    And the files of a finished run that was in its place, by their suffixes.
    """
    work, copies = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("copies")
    train(mine(), *ONE, "--batch-size", 5, cwd=work)
    before = {path.suffix: path.read_bytes() for path in (work / "runs").iterdir()}
    with moments(work / "runs", copies) as states:
        train(mine(), *THREE, cwd=work)
    return states, before


def test_nothing_is_lost_whenever_a_run_is_killed(killed_at, tmp_path, three_epochs):
    states, before = killed_at
    assert len(states) > 15
    for number, state in enumerate(states):
        folder = tmp_path / str(number)
        runs = Path(shutil.copytree(state, folder / "runs"))
        has_begun = result_in(runs).get("settings", {}).get("epochs") == 3
        done = len(numbers(runs / "mine.csv")) if has_begun and (runs / "mine.csv").exists() else 0
        ended = train(mine(), *THREE, *["--resume"] * has_begun, cwd=folder)
        assert ended.code == 0, (state, ended.errors)
        assert numbers(runs / "mine.csv") == three_epochs
        if done > 1:
            resumed = re.search(r"Resuming after epoch (\d)|nothing to resume", ended.output)
            assert int(resumed[1] or 3) >= done - 1
        assert result_in(runs)["finished"] and result_in(runs)["epochs_trained"] == 3
        for suffix, content in before.items():
            assert content in [path.read_bytes() for path in runs.glob(f"earlier/*{suffix}")]
        assert files_of(folder) == ["mine.csv", "mine.json", "mine.png"]


def test_damaged_checkpoint_falls_back_to_the_one_before(interrupted, three_epochs):
    checkpoint = interrupted / "mine.checkpoint.keras"
    checkpoint.write_bytes(bytes(checkpoint.stat().st_size))
    ended = train(mine(), *THREE, "--resume", cwd=interrupted.parent)
    assert ended.code == 0, ended.errors
    assert "mine.checkpoint.keras: damaged or foreign" in ended.output
    assert "Resuming after epoch 1 of 3" in ended.output
    assert numbers(interrupted / "mine.csv") == three_epochs


def test_folder_in_place_of_a_checkpoint_is_moved_out_of_the_way(interrupted, three_epochs):
    (interrupted / "mine.checkpoint.keras").unlink()
    (interrupted / "mine.checkpoint.keras").mkdir()
    ended = train(mine(), *THREE, "--resume", cwd=interrupted.parent)
    assert ended.code == 0, ended.errors
    assert "mine.checkpoint.keras is a folder, not a file. Going back" in ended.output
    assert numbers(interrupted / "mine.csv") == three_epochs
    assert [path.is_dir() for path in (interrupted / "earlier").iterdir()] == [True]


def unreadable(monkeypatch, suffix):
    """Files whose name ends so can't be opened, as by somebody without the permission."""

    def refuse(path, *arguments, **options):
        if str(path).endswith(suffix):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return open(path, *arguments, **options)

    monkeypatch.setattr(files, "open", refuse, raising=False)


def test_checkpoint_that_may_not_be_read_is_not_called_damaged(interrupted, monkeypatch):
    before = files_of(interrupted.parent)
    unreadable(monkeypatch, "mine.checkpoint.keras")
    ended = train(mine(), *THREE, "--resume", cwd=interrupted.parent)
    assert_refused(ended, "mine.checkpoint.keras: Permission denied")
    assert files_of(interrupted.parent) == before


def test_result_that_may_not_be_read_lets_no_new_run_begin(interrupted, monkeypatch):
    before = files_of(interrupted.parent)
    unreadable(monkeypatch, "mine.json")
    assert_refused(train(mine(), *THREE, cwd=interrupted.parent), "mine.json: Permission denied")
    assert files_of(interrupted.parent) == before


def stop_at_the_images(monkeypatch):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(machinery.run, "find_dataset", interrupted)


def test_ctrl_c_before_the_run_has_begun_says_to_start_again(tmp_path, monkeypatch):
    stop_at_the_images(monkeypatch)
    ended = train(mine(), *THREE, cwd=tmp_path)
    assert ended.code == 130 and "Run the same command again." in ended.errors
    assert "--resume" not in ended.errors


def test_ctrl_c_before_a_run_goes_on_says_to_resume(interrupted, monkeypatch):
    stop_at_the_images(monkeypatch)
    ended = train(mine(), *THREE, "--resume", cwd=interrupted.parent)
    assert ended.code == 130 and "run the same command with --resume" in ended.errors


def test_run_killed_between_two_checkpoints_goes_on_from_the_one_before(interrupted, three_epochs):
    (interrupted / "mine.checkpoint.keras").unlink()
    ended = train(mine(), *THREE, "--resume", cwd=interrupted.parent)
    assert "Resuming after epoch 1 of 3" in ended.output
    assert numbers(interrupted / "mine.csv") == three_epochs


def test_run_without_a_good_checkpoint_begins_again_and_loses_nothing(interrupted, three_epochs):
    for name in ("mine.checkpoint.keras", "mine.checkpoint_before.keras"):
        (interrupted / name).write_text("damaged")
    ended = train(mine(), *THREE, "--resume", cwd=interrupted.parent)
    assert ended.code == 0, ended.errors
    assert "the run begins again" in ended.output
    assert numbers(interrupted / "mine.csv") == three_epochs
    (earlier,) = (interrupted / "earlier").glob("*.csv")
    assert numbers(earlier) == three_epochs[:2]


def test_checkpoint_of_another_run_is_refused(interrupted, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    with ctrl_c_after(1):
        train(mine(), *THREE, cwd=other)
    recorded = result(interrupted / "mine.json") | {"started": "2026-01-02T00:00:00"}
    (interrupted / "mine.json").write_text(json.dumps(recorded))
    ended = train(mine(), *THREE, "--resume", cwd=interrupted.parent)
    assert_refused(ended, "mine.checkpoint.keras belongs to another run")


def test_checkpoint_of_other_layers_is_refused(interrupted):
    wider = Experiment(partial(tiny_network, units=9), 100)
    ended = train(wider, *THREE, "--resume", cwd=interrupted.parent)
    assert_refused(ended, "trained with other code")


def rewrite(checkpoint, member="run.json", **changes):
    """Change what a checkpoint says of its run, or of its model."""
    with rewritten_zip(checkpoint) as members:
        members[member] = json.dumps(json.loads(members[member]) | changes)


@pytest.mark.parametrize(
    "edit", [{"loss": "mse"}, {"loss_weights": [0.0]}, {"metrics": None}, {"metrics": ["mae"]},
             {"weighted_metrics": ["accuracy"]}, {"steps_per_execution": 1000}],
)  # fmt: skip
def test_only_values_are_taken_from_a_checkpoint(interrupted, three_epochs, edit):
    """Loss, metrics and the like are what the code says, whatever the checkpoint has."""
    checkpoint = interrupted / "mine.checkpoint.keras"
    with zipfile.ZipFile(checkpoint) as archive:
        compiled = json.loads(archive.read("config.json"))["compile_config"]
    rewrite(checkpoint, "config.json", compile_config=compiled | edit)
    ended = train(mine(), *THREE, "--resume", cwd=interrupted.parent)
    assert "Resuming after epoch 2 of 3" in ended.output, ended.errors
    assert ended.code == 0 and numbers(interrupted / "mine.csv") == three_epochs


def test_checkpoint_without_its_optimizers_state_falls_back(interrupted, three_epochs):
    with rewritten_weights(interrupted / "mine.checkpoint.keras") as file:
        del file["optimizer"]
    ended = train(mine(), *THREE, "--resume", cwd=interrupted.parent)
    assert "its optimizer's state is missing" in ended.output, ended.errors
    assert numbers(interrupted / "mine.csv") == three_epochs


@pytest.mark.parametrize("changes", [{"epochs_trained": -1}, {"callbacks": 5}])
def test_checkpoint_that_makes_no_sense_falls_back_to_the_one_before(
    interrupted, three_epochs, changes
):
    rewrite(interrupted / "mine.checkpoint.keras", **changes)
    ended = train(mine(), *THREE, "--resume", cwd=interrupted.parent)
    assert ended.code == 0, ended.errors
    assert "Resuming after epoch 1 of 3" in ended.output
    assert numbers(interrupted / "mine.csv") == three_epochs


def test_checkpoint_whose_model_is_another_than_it_says_falls_back(interrupted, three_epochs):
    checkpoint, other = interrupted / "mine.checkpoint.keras", interrupted / "other.keras"
    with zipfile.ZipFile(checkpoint) as archive:
        record = archive.read("run.json")
    tiny_network(units=16).save(other)
    with zipfile.ZipFile(other, "a") as archive:
        archive.writestr("run.json", record)
    other.replace(checkpoint)
    ended = train(mine(), *THREE, "--resume", cwd=interrupted.parent)
    assert ended.code == 0, ended.errors
    assert "weights of another network than it says" in ended.output
    assert numbers(interrupted / "mine.csv") == three_epochs


def test_picture_of_a_finished_run_is_not_drawn_without_its_numbers(tmp_path):
    assert train(mine(), *THREE, cwd=tmp_path).code == 0
    picture = (tmp_path / "runs" / "mine.png").read_bytes()
    (tmp_path / "runs" / "mine.csv").unlink()
    ended = train(mine(), *THREE, "--resume", cwd=tmp_path)
    assert_refused(ended, "mine.csv lacks some of the 3 epochs")
    assert (tmp_path / "runs" / "mine.png").read_bytes() == picture


@pytest.mark.parametrize("damage", ["", "{", "[1]"])
def test_damaged_result_is_explained_and_archived(interrupted, damage):
    (interrupted / "mine.json").write_text(damage)
    ended = train(mine(), *THREE, "--resume", cwd=interrupted.parent)
    assert_refused(ended, "damaged or foreign", "Without --resume a new run begins")
    assert train(mine(), *THREE, cwd=interrupted.parent).code == 0
    assert len(list((interrupted / "earlier").iterdir())) == 4


def test_loss_that_is_no_number_stops_the_run(tmp_path):
    hot = keras.optimizers.SGD(1e30)
    ended = train(Experiment(partial(tiny_network, optimizer=hot), 9), *THREE, cwd=tmp_path)
    assert_refused(ended, "in epoch 1", "learning rate", "a tenth")
    assert "epochs before" not in ended.errors
    assert "NaN" not in (tmp_path / "runs" / "mine.json").read_text()
    assert train(mine(), *THREE, cwd=tmp_path).code == 0  # it blocks nothing


def test_loss_that_is_no_number_later_leaves_the_epochs_before(tmp_path):
    class Spoil(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                self.model.set_weights([np.nan * each for each in self.model.get_weights()])

    ended = train(Experiment(tiny_network, 9, callbacks=(Spoil(),)), *THREE, cwd=tmp_path)
    assert_refused(ended, "in epoch 3", "epochs before are saved in runs/mine.csv")
    assert len(numbers(tmp_path / "runs" / "mine.csv")) == 2
    assert load_checkpoint(tmp_path / "runs" / "mine.checkpoint.keras")[1]["epochs_trained"] == 2


def test_unforeseen_error_leaves_the_run_as_it_was(tmp_path):
    class Failing(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                raise ZeroDivisionError("nobody foresaw this")

    ended = train(Experiment(tiny_network, 9, callbacks=(Failing(),)), *THREE, cwd=tmp_path)
    assert ended.code == 1 and "Traceback" not in ended.errors
    assert "ZeroDivisionError: nobody foresaw this" in ended.errors
    os.unlink(re.search(r"details are in (\S+):", ended.errors)[1])
    assert len(numbers(tmp_path / "runs" / "mine.csv")) == 1
    assert (tmp_path / "runs" / "mine.checkpoint.keras").exists()


def test_ctrl_c_that_ends_tee_too_still_says_how_to_resume(tmp_path):
    script = f"{sys.executable} {ROOT}/experiments/baseline1.py --sample --limit 20 --epochs 9999"
    process = subprocess.Popen(
        ["bash", "-c", f"{script} | tee log.txt; exit ${{PIPESTATUS[0]}}"],
        cwd=tmp_path, env={**os.environ, **OFFLINE}, stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL, text=True, start_new_session=True,
    )  # fmt: skip
    checkpoint = tmp_path / "runs" / "baseline1.checkpoint.keras"
    deadline = time.monotonic() + 100
    while not checkpoint.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    errors = process.communicate(timeout=100)[1]
    assert "run the same command with --resume" in errors and process.returncode == 130
    assert "Traceback" not in errors and "Broken pipe" not in errors


def test_run_interrupted_before_its_first_epoch_is_begun_again(tmp_path):
    def define_model(*shape):
        raise KeyboardInterrupt

    ended = train(Experiment(define_model, 100), *ONE, cwd=tmp_path)
    assert ended.code == 130
    assert "0 of 1 epochs are saved in runs" in ended.errors
    ended = train(mine(), *ONE, "--resume", cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert "Resuming after" not in ended.output
    assert result(tmp_path / "runs" / "mine.json")["finished"]


def test_finished_run_that_stopped_early_still_says_so(tmp_path):
    stopping = keras.callbacks.EarlyStopping("val_loss", min_delta=10, patience=1)
    experiment = Experiment(tiny_network, 4, callbacks=(stopping,))
    arguments = (*ONE[:-1], 4)
    first = train(experiment, *arguments, cwd=tmp_path)
    again = train(experiment, *arguments, "--resume", cwd=tmp_path)
    (line,) = [line for line in first.output.splitlines() if line.startswith("> ")]
    assert "stopped early" in line and line in again.output


def test_data_of_the_users_own(tmp_path, sample):
    np.savez(tmp_path / "own.npz", **sample.arrays())
    ended = train(mine(), "--data", "own.npz", *ONE[1:], cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert "> " in ended.output and "of images that are not the official CIFAR-10)" in ended.output
    recorded = result(tmp_path / "runs" / "mine.json")
    assert recorded["dataset"]["source"].startswith("own.npz")
    assert recorded["settings"]["batch_size"] == 64  # a quarter only in the sample


def test_malicious_data_is_refused_in_one_line(tmp_path):
    class Malice:
        def __reduce__(self):
            return print, ("it runs",)

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps(Malice()))
    ended = train(mine(), "--data", folder, cwd=tmp_path)
    assert_refused(ended, "data_batch_1", "print")
    assert "it runs" not in ended.output


def test_result_has_what_it_takes_to_repeat_the_run(tmp_path):
    train(mine(), *ONE, "--batch-size", 7, "--seed", 5, "--no-mixed-precision", cwd=tmp_path)
    recorded = result(tmp_path / "runs" / "seed_5" / "mine.json")
    assert recorded["settings"] == {
        "experiment": "mine", "epochs": 1, "batch_size": 7, "seed": 5, "mixed_precision": False,
        "validation": "test", "sample": True, "limit": 20,
    }  # fmt: skip
    assert set(recorded["versions"]) == {"python", "keras", "tensorflow", "numpy"}
    assert recorded["hardware"]["processor"] and recorded["hardware"]["cores"]
    assert recorded["started"] <= recorded["finished"]
    assert recorded["published_accuracy"] is None  # which the tutorial does not know


def test_sample_is_trained_on_for_20_epochs(tmp_path):
    def define_model(*shape):
        raise KeyboardInterrupt  # what is asked for is recorded by then

    train(Experiment(define_model, 100), *ONE[:-2], cwd=tmp_path)
    assert result(tmp_path / "runs" / "mine.json")["settings"]["epochs"] == 20


def test_command_is_suggested_for_the_same_folder(tmp_path):
    ended = train(mine(), *ONE, "--out", "else where", cwd=tmp_path)
    assert ended.output.endswith(f"Next:            python {ROOT}/compare.py 'else where'\n")


def test_second_process_is_refused_before_anything_is_touched_or_read(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    with only_owner(tmp_path / "runs" / "mine.lock", "the run"):
        with monkeypatch.context() as patch:
            patch.delattr(machinery.run, "find_dataset")
            ended = train(mine(), *ONE, cwd=tmp_path)
        assert_refused(ended, f"runs/mine.json belongs to process {os.getpid()}")
        assert [path.name for path in (tmp_path / "runs").iterdir()] == ["mine.lock"]
        assert train(mine(), *ONE, "--seed", 1, cwd=tmp_path).code == 0  # another run


def test_run_that_another_process_resumes_is_left_alone(tmp_path):
    with ctrl_c_after(1):
        train(mine(), *THREE, cwd=tmp_path)
    before = {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}
    with only_owner(tmp_path / "runs" / "mine.lock", "the run"):
        ended = train(mine(), *THREE, "--resume", cwd=tmp_path)
        assert_refused(ended, f"runs/mine.json belongs to process {os.getpid()}")
    assert before == {path: path.read_bytes() for path in (tmp_path / "runs").iterdir()}


def test_ctrl_c_while_the_picture_is_drawn_loses_nothing(monkeypatch, tmp_path):
    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(harness, "save_figure", interrupted)
        ended = train(mine(), *ONE, cwd=tmp_path)
    assert ended.code == 130 and "run the same command with --resume" in ended.errors
    assert train(mine(), *ONE, "--resume", cwd=tmp_path).code == 0
    assert files_of(tmp_path) == ["mine.csv", "mine.json", "mine.png"]


@pytest.mark.parametrize("options", [("--limit", 5000), ("--fold", "1/100")])
def test_options_that_are_refused_leave_a_finished_run_where_it_is(tmp_path, sample, options):
    arrays = {name: array[:50] for name, array in sample.arrays().items()}
    np.savez(tmp_path / "own.npz", **arrays)
    own = ("--data", "own.npz", "--epochs", 1)
    train(mine(), *own, cwd=tmp_path)
    before = files_of(tmp_path)
    assert train(mine(), *own, *options, cwd=tmp_path).code == 2
    assert files_of(tmp_path) == before
    assert not list((tmp_path / "runs").rglob("fold*/*")) + list((tmp_path / "runs").glob("earl*"))


@pytest.mark.parametrize("change", ["more", "other"])
def test_history_with_other_columns_is_put_aside(tmp_path, change):
    with ctrl_c_after(1):
        train(mine(), *THREE, cwd=tmp_path)
    path = tmp_path / "runs" / "mine.csv"
    head, row = path.read_text().split()
    head = head.replace("test_", "validation_") if change == "other" else f"{head},lr"
    path.write_text(f"{head}\n{row}{',1' if change == 'more' else ''}\n")
    ended = train(mine(), *THREE, "--resume", cwd=tmp_path)
    assert ended.code == 0 and "its columns are not those of this run" in ended.output
    assert len(list((tmp_path / "runs/earlier").iterdir())) >= 2


def test_run_whose_first_epoch_fails_can_be_started_again(tmp_path):
    def define_model(*shape):
        raise OSError("no memory")

    assert_refused(train(Experiment(define_model, 100), *ONE, cwd=tmp_path), "no memory")
    assert train(mine(), *ONE, "--batch-size", 3, cwd=tmp_path).code == 0


# What pictures say.


def drawn(monkeypatch, experiment, *arguments, cwd):
    """The title and the two y axes of the picture that an experiment leaves."""
    texts = []

    def look(figure, path):
        texts.append(figure.get_suptitle())
        texts.extend(axes.get_ylabel() for axes in figure.axes)

    monkeypatch.setattr(harness, "save_figure", look)
    assert train(experiment, *arguments, cwd=cwd).code == 0
    return texts


def test_picture_says_what_is_plotted_and_after_how_many_epochs(monkeypatch, tmp_path):
    title, *axes = drawn(monkeypatch, mine(), *THREE, cwd=tmp_path)
    assert axes == ["cross-entropy", "accuracy (%)"]
    assert re.search(r"^mine: test accuracy \S+ % after 3 of 100 epochs\n.*sample", title)
    title = drawn(monkeypatch, Experiment(tiny_network, 3), *THREE, cwd=tmp_path)[0]
    assert re.search(r"^mine: test accuracy \S+ % after 3 epochs\n", title)
    title = drawn(monkeypatch, Experiment(tiny_network, 2), *THREE, cwd=tmp_path)[0]
    assert re.search(r"^mine: test accuracy \S+ % after 3 epochs\n", title)


def test_picture_says_once_that_a_run_stopped_early(monkeypatch, tmp_path):
    stopping = keras.callbacks.EarlyStopping("val_loss", min_delta=10, patience=1)
    experiment = Experiment(tiny_network, 100, callbacks=(stopping,))
    title = drawn(monkeypatch, experiment, *THREE, cwd=tmp_path)[0]
    first, second = title.splitlines()
    assert first.endswith(" % after 2 epochs") and "after 2 of 3 epochs" in second
