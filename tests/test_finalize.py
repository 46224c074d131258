import os
import re

import experiments
import harness
from conftest import (
    BLUE,
    ORANGE,
    ROOT,
    TINY,
    a_result,
    assert_refused,
    call,
    colours,
    ctrl_c_after,
    moments,
    numbers,
    result,
    tiny_network,
)
from experiments import EXPERIMENTS
from harness import Experiment
from machinery.final_model import read_training, save_final_model
from machinery.lock import only_owner

import numpy as np
import pytest

ONE = (*TINY, "--epochs", 1)


ALL_IMAGES = (*TINY, "--epochs", 2, "--experiment", "baseline1", "--all-images")


def finalized_in(folder, arguments):
    ended = call("finalize.py", *arguments, cwd=folder)
    assert ended.code == 0, ended.errors
    return folder, ended.output


@pytest.fixture(scope="module")
def finalized(tmp_path_factory):
    """A folder with the final model of a tiny run, and what finalize.py printed."""
    return finalized_in(tmp_path_factory.mktemp("finalized"), ONE)


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


def test_there_is_a_model_and_the_earlier_one_is_kept_whenever_it_is_killed(tmp_path, monkeypatch):
    """In any of the states that the files go through."""
    tiny = Experiment(tiny_network, epochs=1)
    monkeypatch.setattr(experiments, "load_experiment", lambda name: tiny)
    work = tmp_path / "work"
    work.mkdir()
    save_final_model(tiny_network(), a_result(), work / "final_model.h5")
    before = (work / "final_model.h5").read_bytes()
    with moments(work, tmp_path / "killed") as states:
        assert call("finalize.py", *ONE, cwd=work).code == 0
    assert len(states) > 10
    for folder in states:
        model, recorded = folder / "final_model.h5", folder / "runs" / "final_model.json"
        assert model.read_bytes() == before or read_training(model)["finished"]
        ended = call("finalize.py", *ONE, *["--resume"] * recorded.exists(), cwd=folder)
        assert ended.code == 0, (folder, ended.errors)
        assert read_training(model)["started"] == result(recorded)["started"]
        assert before in [path.read_bytes() for path in (folder / "earlier").iterdir()]


def test_model_of_a_finished_run_that_is_gone_is_missed(tmp_path):
    arguments = (*ONE, "--experiment", "baseline1")
    call("finalize.py", *arguments, cwd=tmp_path)
    assert call("finalize.py", *arguments, "--resume", cwd=tmp_path).code == 0
    (tmp_path / "final_model.h5").unlink()
    ended = call("finalize.py", *arguments, "--resume", cwd=tmp_path)
    assert_refused(ended, "its model is not in final_model.h5", "without --resume")


def test_model_of_another_run_is_not_taken_for_that_of_a_finished_one(tmp_path):
    arguments = (*TINY, "--epochs", 1)
    assert call("finalize.py", *arguments, "--model", "a.h5", cwd=tmp_path).code == 0
    save_final_model(tiny_network(), a_result(), tmp_path / "b.h5")
    ended = call("finalize.py", *arguments, "--model", "b.h5", "--resume", cwd=tmp_path)
    assert_refused(ended, "its model is not in b.h5: name the file that it is in")
    assert call("finalize.py", *arguments, "--model", "a.h5", "--resume", cwd=tmp_path).code == 0


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


@pytest.fixture(scope="module")
def on_all_images(tmp_path_factory):
    """A folder with a model that was trained on all images, and what finalize.py printed."""
    return finalized_in(tmp_path_factory.mktemp("all_images"), ALL_IMAGES)


def test_all_images_are_those_for_training_and_for_the_test(tmp_path, monkeypatch):
    seen = []

    class Seen(harness.TrainingBatches):
        def __init__(self, images, labels, *others):
            seen.append((len(images), labels.sum(axis=0).tolist()))
            super().__init__(images, labels, *others)

    monkeypatch.setattr(harness, "TrainingBatches", Seen)
    call("finalize.py", *ALL_IMAGES, cwd=tmp_path)
    assert seen == [(30, [3.0] * 10)]


def test_of_all_images_no_accuracy_is_reported(on_all_images):
    folder, output = on_all_images
    assert "\n> none (" in output and "trained on the test images too" in output
    assert "evaluate.py" not in output and f"Then:            python {ROOT}/predict.py\n" in output
    recorded = result(folder / "runs" / "final_model.json")
    assert recorded["test_accuracy"] is recorded["test_loss"] is None
    assert recorded["dataset"]["training_images"] == 30
    assert recorded["dataset"]["test_images"] == 0
    columns = set(numbers(folder / "runs" / "final_model.csv")[0])
    assert columns == {"epoch", "train_loss", "train_accuracy", "seconds"}


def test_picture_of_all_images_has_the_training_curves_only(on_all_images):
    shown = colours(on_all_images[0] / "runs" / "final_model.png")
    assert BLUE in shown and ORANGE not in shown


def test_model_of_all_images_is_not_evaluated_but_predicts(on_all_images):
    folder, _ = on_all_images
    ended = call("evaluate.py", "--sample", cwd=folder)
    assert_refused(ended, "final_model.h5 was trained on the test images too")
    assert call("predict.py", cwd=folder).code == 0


def test_run_on_all_images_is_compared_without_an_accuracy(on_all_images):
    ended = call("compare.py", cwd=on_all_images[0])
    assert ended.code == 0, ended.errors
    (row,) = re.findall(r"^final_model.*", ended.output, re.M)
    assert row.split()[3] == "-" and "trained on the test images too" in row
    ended = call("compare.py", "--markdown", cwd=on_all_images[0])
    assert "finalize.py --experiment baseline1 --all-images" in ended.output


def test_run_on_all_images_is_resumed_as_one(tmp_path):
    with ctrl_c_after(1):
        assert call("finalize.py", *ALL_IMAGES, cwd=tmp_path).code == 130
    without = call("finalize.py", *ALL_IMAGES[:-1], "--resume", cwd=tmp_path)
    assert_refused(without, "to go on, add --all-images")
    ended = call("finalize.py", *ALL_IMAGES, "--resume", cwd=tmp_path)
    assert "Resuming after epoch 1 of 2" in ended.output, ended.errors
    assert (tmp_path / "final_model.h5").exists()


def test_model_is_not_saved_over_files_of_the_run_by_another_path(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "link").symlink_to("runs")
    for folder in ("runs/../runs", "link"):
        model = f"{folder}/final_model.checkpoint.keras"
        assert_refused(call("finalize.py", *ONE, "--model", model, cwd=tmp_path), "something else")


@pytest.mark.parametrize("what", ["folder", "pipe", "file in place of the folder for it"])
def test_model_that_could_not_be_kept_is_refused_before_the_training(tmp_path, what):
    model = tmp_path / "final_model.h5"
    if what == "folder":
        model.mkdir()
    elif what == "pipe":
        os.mkfifo(model)
    else:
        model.write_text("a model")
        (tmp_path / "earlier").write_text("in the way")
    ended = call("finalize.py", *ONE, cwd=tmp_path)
    assert ended.code == 2 and not list(tmp_path.glob("runs/*"))
    assert what == "folder" or "earlier" in ended.errors or "regular file" in ended.errors


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--all-images", "--validation", "holdout"), "holds some of them out"),
        (("--all-images", "--experiment", "early_stopping"), "early_stopping by itself"),
        (("--model", "model.pb"), "must end in .h5 or .keras"),
        (("--model", 240 * "m" + ".h5"), "a name of at most 220 bytes"),
        (("--model", "model.h5", "--format", "keras"), "must end in .keras"),
        (("--model", "final_model.h5", "--format", "keras"), "must end in .keras"),
        (("--model", "/dev/null/model.h5"), "/dev/null is there, but is no folder"),
        (("--experiment", "baseline9"), "baseline9"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, arguments, reason):
    assert_refused(call("finalize.py", *ONE, *arguments, cwd=tmp_path), reason)
