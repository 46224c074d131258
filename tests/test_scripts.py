"""Runs the scripts as a user does, each in a process and a folder of its own, offline."""

import json
import pickle
import re
import shutil
import signal

from conftest import ROOT, interrupt_after_first_epoch, numbers, result, run, start
from test_harness import PROTOCOL, colours

import numpy as np
import pytest
from PIL import Image

TINY = ("--sample", "--limit", 100)  # two steps an epoch


def error_lines(process):
    """What a script says of its own; TensorFlow writes lines to the same stream."""
    return [line for line in process.errors.splitlines() if ".py: error: " in line]


def assert_refused(process, *reasons):
    """Check that a script left with one line of error and argparse's exit code."""
    assert process.returncode == 2, process.errors
    assert "Traceback" not in process.errors
    assert len(error_lines(process)) == 1
    for reason in reasons:
        assert reason in process.errors


@pytest.mark.parametrize("name", PROTOCOL)
def test_experiment_leaves_curves_numbers_and_result(tmp_path, name):
    process = run(f"experiments/{name}.py", *TINY, "--epochs", 1, cwd=tmp_path)
    assert process.returncode == 0, process.errors

    accuracy = re.search(
        r"^> (\d+\.\d{3}) \(on 100 training images of the sample", process.output, re.M
    )
    recorded = result(tmp_path / "runs" / f"{name}.json")
    assert float(accuracy[1]) == pytest.approx(recorded["test_accuracy"], abs=1e-3)
    assert recorded["published_accuracy"] == PROTOCOL[name][1]
    assert recorded["parameters"] == PROTOCOL[name][2]
    assert recorded["dataset"]["training_images"] == 100

    (row,) = numbers(tmp_path / "runs" / f"{name}.csv")
    assert float(row["test_accuracy"]) == pytest.approx(recorded["test_accuracy"], abs=1e-3)
    with Image.open(tmp_path / "runs" / f"{name}.png") as curves:
        assert curves.size == (800, 800)
    for suffix in ("png", "csv", "json"):
        assert f"runs/{name}.{suffix}" in process.output
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        f"{name}.csv", f"{name}.json", f"{name}.png",
    ]  # fmt: skip


# The experiment with most that is random: initial weights, order, dropout, augmentation.
RANDOM = "experiments/dropout_augmentation.py"


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A whole run of four epochs: its folder and its process."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    process = run(RANDOM, *TINY, "--epochs", 4, cwd=folder)
    assert process.returncode == 0, process.errors
    return folder / "runs", process


def test_progress_tells_the_minutes_left_for_the_whole_run(uninterrupted):
    left = re.findall(r"minutes_left: (\S+)", uninterrupted[1].output)
    assert len(left) == 3  # after each of four epochs but the last
    assert [float(minutes) for minutes in left] == sorted(map(float, left), reverse=True)
    assert 0 < float(left[-1]) < 1


def test_same_seed_gives_the_same_numbers(uninterrupted, tmp_path):
    run(RANDOM, *TINY, "--epochs", 4, cwd=tmp_path)
    whole = numbers(uninterrupted[0] / "dropout_augmentation.csv")
    assert numbers(tmp_path / "runs" / "dropout_augmentation.csv") == whole


def test_another_seed_gives_other_numbers(uninterrupted, tmp_path):
    run(RANDOM, *TINY, "--epochs", 1, "--seed", 1, cwd=tmp_path)
    whole = numbers(uninterrupted[0] / "dropout_augmentation.csv")
    assert numbers(tmp_path / "runs" / "dropout_augmentation.csv")[0] != whole[0]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a run of four epochs that was killed (-9) after the first."""
    folder = tmp_path_factory.mktemp("killed")
    process = start(RANDOM, *TINY, "--epochs", 4, cwd=folder)
    checkpoint = folder / "runs" / "dropout_augmentation.checkpoint.keras"
    process = interrupt_after_first_epoch(process, signal.SIGKILL, checkpoint)
    assert process.returncode == -signal.SIGKILL
    return folder


def test_new_run_does_not_overwrite_an_unfinished_one(killed):
    before = (killed / "runs" / "dropout_augmentation.json").read_bytes()
    assert_refused(run(RANDOM, *TINY, "--epochs", 4, cwd=killed), "of 4 epochs", "--resume")
    assert (killed / "runs" / "dropout_augmentation.json").read_bytes() == before


def test_resume_with_other_settings_is_refused(killed):
    process = run(RANDOM, *TINY, "--epochs", 5, "--seed", 3, "--resume", cwd=killed)
    assert_refused(process, "epochs was 4, not 5", "seed was 0, not 3")


def test_resume_with_other_images_is_refused(killed, sample, tmp_path):
    other = sample.arrays() | {"x_test": sample.x_test[::-1]}
    unfinished = killed / "runs" / "dropout_augmentation.json"
    settings = result(unfinished)
    settings["settings"]["sample"] = False
    (tmp_path / "dropout_augmentation.json").write_text(json.dumps(settings))
    np.savez(tmp_path / "other.npz", **other)
    arguments = ("--data", "other.npz", "--limit", 100, "--epochs", 4, "--out", ".", "--resume")
    assert_refused(run(RANDOM, *arguments, cwd=tmp_path), "other images")


def test_comparison_names_unfinished_runs_and_those_on_the_sample(killed):
    process = run("compare.py", cwd=killed)
    (row,) = [line for line in process.output.splitlines() if line.startswith("dropout_aug")]
    assert "85.88 %" in row and "of 4" in row
    assert "unfinished" in row and "sample" in row


def test_killed_run_resumes_as_if_nothing_had_happened(killed, uninterrupted):
    (killed / "runs" / ".dropout_augmentation.checkpoint.123.keras").write_text("half")
    process = run(RANDOM, *TINY, "--epochs", 4, "--resume", cwd=killed)
    assert process.returncode == 0, process.errors
    assert not [path for path in (killed / "runs").iterdir() if path.name.startswith(".")]
    assert re.search(r"Resuming after epoch [1-3] of 4", process.output)
    whole = numbers(uninterrupted[0] / "dropout_augmentation.csv")
    assert numbers(killed / "runs" / "dropout_augmentation.csv") == whole
    assert (
        result(killed / "runs" / "dropout_augmentation.json")["test_loss"]
        == result(uninterrupted[0] / "dropout_augmentation.json")["test_loss"]
    )


def test_ctrl_c_says_how_to_resume(tmp_path):
    process = start(RANDOM, *TINY, "--epochs", 1000, cwd=tmp_path)
    checkpoint = tmp_path / "runs" / "dropout_augmentation.checkpoint.keras"
    process = interrupt_after_first_epoch(process, signal.SIGINT, checkpoint)
    assert process.returncode == 130
    assert "of 1000 epochs are saved" in process.output and "--resume" in process.output
    assert "Traceback" not in process.errors
    saved = int(re.search(r"(\d+) of 1000 epochs are saved", process.output)[1])
    # Ctrl-C may come between the two writes at the end of an epoch: the numbers are one ahead.
    rows = numbers(tmp_path / "runs" / "dropout_augmentation.csv")
    assert saved <= len(rows) <= saved + 1


def test_resuming_nothing_is_refused(tmp_path):
    process = run("experiments/baseline1.py", *TINY, "--resume", cwd=tmp_path)
    assert_refused(process, "nothing to resume")


def test_finished_run_is_kept_when_it_is_run_again(tmp_path):
    for seed in (1, 2):
        arguments = (*TINY, "--epochs", 1, "--seed", seed)
        process = run("experiments/baseline1.py", *arguments, cwd=tmp_path)
    assert "earlier" in process.output
    assert result(tmp_path / "runs" / "baseline1.json")["settings"]["seed"] == 2
    (earlier,) = (tmp_path / "runs" / "earlier").glob("baseline1-*.json")
    assert result(earlier)["settings"]["seed"] == 1
    assert earlier.with_suffix(".png").exists() and earlier.with_suffix(".csv").exists()


def test_holdout_evaluates_on_validation_images(tmp_path):
    arguments = (*TINY, "--epochs", 1, "--validation", "holdout", "--out", "here")
    process = run("experiments/baseline1.py", *arguments, cwd=tmp_path)
    assert process.returncode == 0, process.errors
    assert "validation_accuracy" in process.output
    data = result(tmp_path / "here" / "baseline1.json")["dataset"]
    counts = data["training_images"], data["validation_images"], data["test_images"]
    assert counts == (90, 10, 20)
    (row,) = numbers(tmp_path / "here" / "baseline1.csv")
    assert "validation_loss" in row and "test_loss" not in row


def test_data_of_the_users_own(tmp_path, sample):
    np.savez(tmp_path / "own.npz", **sample.arrays())
    arguments = ("--data", "own.npz", "--limit", 100, "--epochs", 1)
    process = run("experiments/baseline1.py", *arguments, cwd=tmp_path)
    assert process.returncode == 0, process.errors
    assert "not the official CIFAR-10" in process.output


def test_missing_dataset_is_explained(tmp_path):
    process = run("experiments/baseline1.py", cwd=tmp_path, PATH=str(tmp_path))
    assert_refused(process, "npm is not installed", "experiments/baseline1.py --sample")
    assert list((tmp_path / "runs").iterdir()) == []


def test_malicious_data_is_refused_in_one_line(tmp_path):
    class Malice:
        def __reduce__(self):
            return print, ("it runs",)

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    (folder / "data_batch_1").write_bytes(pickle.dumps(Malice()))
    process = run("experiments/baseline1.py", "--data", folder, cwd=tmp_path)
    assert_refused(process, "data_batch_1", "print")
    assert "it runs" not in process.output


def test_senseless_option_is_refused(tmp_path):
    process = run("experiments/baseline1.py", "--sample", "--epochs", 0, cwd=tmp_path)
    assert_refused(process, "--epochs")
    assert not (tmp_path / "runs").exists()


def test_explore_dataset_shows_shapes_and_picture(tmp_path):
    process = run("experiments/explore_dataset.py", "--sample", cwd=tmp_path)
    assert "Train: X=(1000, 32, 32, 3)" in process.output
    assert "Test:  X=(250, 32, 32, 3)" in process.output
    assert len(colours(tmp_path / "runs" / "explore_dataset.png")) > 1000  # photos


@pytest.fixture(scope="module")
def final_model(tmp_path_factory):
    """A folder with the final model of a tiny run, and the process that left it there."""
    folder = tmp_path_factory.mktemp("final")
    process = run("finalize.py", *TINY, "--epochs", 1, cwd=folder)
    assert process.returncode == 0, process.errors
    return folder, process


def test_finalize_saves_the_model(final_model):
    folder, _ = final_model
    assert 4.2e6 < (folder / "final_model.h5").stat().st_size < 4.6e6
    assert result(folder / "runs" / "final_model.json")["settings"]["experiment"] == "baseline3"


def test_finalize_takes_any_experiment_and_keeps_the_earlier_model(tmp_path):
    (tmp_path / "final_model.h5").write_text("earlier")
    arguments = (*TINY, "--epochs", 1, "--experiment", "weight_decay")
    assert run("finalize.py", *arguments, cwd=tmp_path).returncode == 0
    assert (
        result(tmp_path / "runs" / "final_model.json")["settings"]["experiment"] == "weight_decay"
    )
    assert (tmp_path / "final_model.earlier.h5").read_text() == "earlier"


def test_evaluation_agrees_with_training(final_model):
    folder, _ = final_model
    process = run("evaluate.py", "--sample", cwd=folder)
    assert process.returncode == 0, process.errors
    accuracy = float(re.search(r"^> (\S+) \(trained on 100", process.output, re.M)[1])
    # Training tested on 20 of these 250 images.
    assert 0 < accuracy < 100
    assert "tested on the sample of CIFAR-10" in process.output


def test_suggested_command_names_the_same_model(final_model, tmp_path):
    model = final_model[0] / "final_model.h5"
    assert "Next:            python evaluate.py; python predict.py\n" in final_model[1].output
    output = run("evaluate.py", "--sample", "--model", model, cwd=tmp_path).output
    assert f"Next: python predict.py --model {model}\n" in output


def test_suggested_command_names_the_same_folder(uninterrupted, tmp_path):
    assert "Next:            python compare.py\n" in uninterrupted[1].output
    process = run(RANDOM, *TINY, "--epochs", 1, "--out", "elsewhere", cwd=tmp_path)
    assert "Next:            python compare.py elsewhere\n" in process.output


def test_speedrun_can_be_the_final_model(tmp_path):
    arguments = ("--sample", "--epochs", 2, "--experiment", "speedrun")
    trained = run("finalize.py", *arguments, cwd=tmp_path)
    evaluated = run("evaluate.py", "--sample", cwd=tmp_path)
    accuracies = [re.search(r"^> (\S+)", p.output, re.M)[1] for p in (trained, evaluated)]
    assert accuracies[0] == accuracies[1]


def test_prediction_of_the_sample_image(final_model):
    process = run("predict.py", cwd=final_model[0])
    assert process.returncode == 0, process.errors
    assert re.search(
        r"sample_image\.png: \d [a-z]+ \([a-z]+ \d+\.\d %, [a-z]+ .*%, [a-z]+ .*%\)", process.output
    )
    assert "expect mistakes" in process.output


def test_bad_images_are_named_and_the_others_predicted(final_model, tmp_path):
    photo = Image.open(ROOT / "sample_image.png")
    photo.save(tmp_path / "good.jpg")
    photo.resize((500, 500)).save(tmp_path / "cut.jpg")
    whole = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("not an image")
    Image.new("1", (30_000, 30_000)).save(tmp_path / "bomb.png")
    names = ["text.png", "missing.png", "cut.jpg", "bomb.png", "good.jpg"]
    model = ("--model", final_model[0] / "final_model.h5")
    process = run("predict.py", *names, *model, cwd=tmp_path)
    assert process.returncode == 2
    assert [line.split(": ")[2] for line in error_lines(process)] == names[:4]
    assert "Traceback" not in process.errors
    assert "good.jpg: " in process.output


@pytest.mark.parametrize("script", ["predict.py", "evaluate.py"])
def test_missing_model_is_explained(tmp_path, script):
    assert_refused(run(script, cwd=tmp_path), "no model final_model.h5", "finalize.py --sample")


def test_comparison_shows_table_and_picture(uninterrupted, tmp_path):
    process = run("compare.py", uninterrupted[0], cwd=tmp_path)
    assert process.returncode == 0, process.errors
    measured = result(uninterrupted[0] / "dropout_augmentation.json")["test_accuracy"]
    assert f"{measured:.2f} %" in process.output and "85.88 %" in process.output
    for picture in ("compare.png", "compare_time.png"):
        assert (0x1F, 0x77, 0xB4) in colours(tmp_path / "runs" / picture)


def test_comparison_takes_runs_together_that_differ_only_in_the_seed(uninterrupted, tmp_path):
    source = uninterrupted[0] / "dropout_augmentation"
    for folder, seed, accuracy in (("a", 0, 10), ("b", 1, 12), ("c", 2, 17), ("d", 2, 18)):
        changed = result(source.with_suffix(".json"))
        changed["settings"]["seed"], changed["test_accuracy"] = seed, accuracy
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "run.json").write_text(json.dumps(changed))
        shutil.copy(source.with_suffix(".csv"), tmp_path / folder / "run.csv")
    output = run("compare.py", "a", "b", "c", cwd=tmp_path).output
    (row,) = [line for line in output.splitlines() if "85.88 %" in line]
    assert "run (3 seeds)" in row and "13.00 %  3.61" in row
    output = run("compare.py", "b", "c", "d", cwd=tmp_path).output  # c and d have the same seed
    rows = [line.split()[0] for line in output.splitlines() if "85.88 %" in line]
    assert rows == ["b/run", "c/run", "d/run"]


def test_comparison_of_nothing_is_explained(tmp_path):
    assert_refused(run("compare.py", cwd=tmp_path), "there is no folder runs")
