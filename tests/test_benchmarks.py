"""The benchmarks measure what they say. How fast anything is, no test knows."""

import importlib
import importlib.util
import math
import os
import re
import sys
from argparse import Namespace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))  # as when one of them is run

import harness
from conftest import ROOT, assert_refused, call, run
from experiments import TUTORIAL, load_experiment
from models.vgg import vgg

import comparison
import harness_way
import ideas
import jobs
import keras
import pytest
import pytorch_way
import steadiness
import training_speed
import workers
from workers import TakeTurns, Worker, users_environment

BENCHMARKS = ROOT / "benchmarks"
SPREAD = r"\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)"

# Tells what plain_way.py has imported by the time that TensorFlow has read the environment.
REPORT = """
import os, sys

def report(connection):
    import plain_way
    connection.recv()
    modules = [name for name in ("machinery", "tensorflow") if name in sys.modules]
    connection.send((modules, dict(os.environ)))
"""


def columns_of(ended, experiment):
    """The rows of the table that a benchmark printed, by their second column."""
    assert ended.code == 0, ended
    rows = re.findall(rf"^\| `{experiment}` \| ([^|]+) \| (.*) \|$", ended.output, re.M)
    return {name: columns.split(" | ") for name, columns in rows}


def test_no_file_hides_a_module():
    # Their folder comes first on sys.path.
    names = {path.stem for path in BENCHMARKS.glob("*.py")}
    ours = {"harness", "data", "machinery", "models", "experiments"}
    assert names and not names & (set(sys.stdlib_module_names) | ours)


def test_commands_of_the_readme_exist():
    commands = re.findall(r"python (benchmarks/\w+\.py)", (BENCHMARKS / "README.md").read_text())
    assert len(set(commands)) >= 4
    assert all((ROOT / command).exists() for command in commands)


# Workers


def test_plain_way_has_the_users_environment_when_tensorflow_reads_it(tmp_path, monkeypatch):
    (tmp_path / "reporter.py").write_text(REPORT)
    monkeypatch.syspath_prepend(tmp_path)
    import reporter

    assert "TF_CPP_MIN_LOG_LEVEL" in os.environ  # machinery has written to this process's
    worker = Worker(reporter.report, environment={"PYTHONPATH": str(tmp_path), "MINE": "1"})
    worker.stop()
    modules, environment = worker.first_turn
    assert modules == ["tensorflow"]
    assert environment["MINE"] == "1"
    for name in ("TF_ENABLE_ONEDNN_OPTS", "TF_CPP_MIN_LOG_LEVEL"):
        assert environment.get(name) == users_environment().get(name)
    assert not os.path.exists(environment["TMPDIR"])  # a stopped worker leaves nothing behind


def test_users_environment_is_the_one_that_the_process_was_started_in(monkeypatch):
    monkeypatch.setenv("SET_SINCE", "1")
    assert "PATH" in users_environment() and "SET_SINCE" not in users_environment()


def test_a_worker_that_fails_tells_why():
    with pytest.raises(RuntimeError, match="must be real number, not Connection"):
        Worker(math.sqrt)


def test_a_worker_that_fails_beside_another_tells_why(tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text(
        "def fail_later(connection):\n"
        "    connection.recv()\n"
        "    connection.send(1)\n"
        "    connection.recv()\n"
        "    raise ValueError('no more')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(workers, "users_environment", lambda: {"PYTHONPATH": str(tmp_path)})
    worker = Worker(importlib.import_module("failing").fail_later)
    with pytest.raises(RuntimeError, match="ValueError: no more"):
        jobs.take_turn([worker])


def test_epoch_lasts_until_the_next_one_begins(monkeypatch):
    class Connection:
        def recv(self):
            pass

        def send(self, speeds):
            sent.append((speeds["training"], speeds["epoch"], speeds["memory"] > 1e6))

    sent = []
    # The first epoch begins, two batches, the first ends; the second begins, one batch, the end.
    clock = iter([100, 101, 102, 104, 200, 201, 203])
    monkeypatch.setattr(workers.time, "perf_counter", lambda: next(clock))
    callback = TakeTurns(Connection(), most_steps=2)
    callback.set_model(vgg(blocks=1))
    callback.on_epoch_begin(0)
    callback.on_train_batch_end(0)
    assert not callback.model.stop_training
    callback.on_train_batch_end(1)
    assert callback.model.stop_training
    callback.on_epoch_end(0)  # other callbacks may still have to write a checkpoint
    assert sent == []
    callback.on_epoch_begin(1)
    callback.on_train_batch_end(0)
    callback.on_epoch_end(1)
    callback.on_train_end()
    assert sent == [(2 * 64 / 2, 2 * 64 / 4, True), (64 / 1, 64 / 3, True)]


# Comparisons


def test_ratios_are_those_of_the_same_round():
    turns = {"a": [{"epoch": 10}, {"epoch": 30}, {"epoch": 8}], "b": [{"epoch": 10}] * 3}
    assert comparison.ratio(turns, "a", "b", "epoch") == "1.00 (0.80 to 3.00)"
    assert comparison.ratio(turns, "b", "a", "epoch") == "1.00 (0.33 to 1.25)"


def test_training_speed_compares_both_ways(tmp_path):
    arguments = ("--sample", "--images", 128, "--rounds", 1, "--experiments", "augmentation")
    ended = call("benchmarks/training_speed.py", *arguments, cwd=tmp_path)
    rows = columns_of(ended, "augmentation")
    assert list(rows) == ["plain", "ours"]
    for columns in rows.values():
        training, to_plain, gflops, epoch, epoch_to_plain, memory = columns
        assert float(training.replace(",", "")) > float(epoch.replace(",", "")) > 0
        assert float(gflops) > 0
        assert re.fullmatch(SPREAD, to_plain) and re.fullmatch(SPREAD, epoch_to_plain)
        assert re.fullmatch(r"\d\.\d\d GB", memory)
    assert re.search(r"float32, GFLOP/s: \d+", ended.output)
    assert list(tmp_path.iterdir()) == []  # a benchmark leaves nothing behind


def test_two_runs_at_once_are_compared_with_one(tmp_path):
    arguments = ("--sample", "--images", 128, "--rounds", 1, "--experiments", "baseline1")
    ended = call("benchmarks/jobs.py", *arguments, cwd=tmp_path)
    (row,) = [line for line in ended.output.splitlines() if line.startswith("| `baseline1`")]
    alone, together, ratio = row.strip("| ").split(" | ")[1:]
    assert float(alone.replace(",", "")) > 0 and float(together.replace(",", "")) > 0
    assert re.fullmatch(SPREAD, ratio)


@pytest.mark.parametrize(
    ("arguments", "batches"), [(("--images", "5000"), 78), (("--sample",), 15)]
)
def test_epochs_are_whole_batches(monkeypatch, arguments, batches):
    monkeypatch.setattr("sys.argv", ["training_speed.py", *arguments])
    options = comparison.parse_comparison(comparison.comparison_parser())
    assert options.images == batches * 64


def test_as_avx2_is_what_such_a_processor_would_do(monkeypatch):
    monkeypatch.setattr("sys.argv", ["training_speed.py", "--as-avx2", "--mixed-precision"])
    options = comparison.parse_comparison(comparison.comparison_parser())
    assert not options.mixed_precision
    options.torch = True
    ways = training_speed.ways_to_train(options)
    assert ways["plain"].environment == {"TF_ENABLE_ONEDNN_OPTS": "0"}
    assert ways["ours"].environment == {}  # machinery turns oneDNN on
    assert list(ways) == ["plain", "ours", "PyTorch"]
    options.as_avx2 = False
    assert training_speed.ways_to_train(options)["plain"].environment == {}


@pytest.mark.parametrize("idea", ideas.IDEAS)
def test_every_idea_can_be_left_out(monkeypatch, idea):
    monkeypatch.setattr(harness, "fuse_batch_norm", harness.fuse_batch_norm)  # restored later

    def recipe(way):
        def remember(name, experiment, options):
            model = experiment.define_model()
            harness.fuse_batch_norm(model)
            seen.extend("call" in vars(layer) for layer in model.layers)
            seen.extend((options.mixed_precision, way.environment))

        seen = []
        monkeypatch.setattr(harness_way, "run_with_the_harness", remember)
        options = Namespace(mixed_precision=True)
        way.train(None, "dropout_augmentation_batchnorm", options)
        return seen

    ways = ideas.ways_without(Namespace(without=[idea], mixed_precision=True))
    (without,) = ways.values()
    assert list(ways) == [f"without {idea}"]
    assert recipe(comparison.Way(harness_way.train_with_the_harness)) != recipe(without)


@pytest.mark.parametrize(
    ("script", "arguments", "reason"),
    [
        ("training_speed.py", ("--images", 63), "from 64 to 50000"),
        ("training_speed.py", ("--experiments", "speedrun"), "speedrun"),
        ("ideas.py", ("--no-mixed-precision", "--without", "bfloat16"), "in float32"),
        ("steadiness.py", ("--minutes", 0), "of at least 1"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, script, arguments, reason):
    assert_refused(call(f"benchmarks/{script}", *arguments, cwd=tmp_path), reason)


# PyTorch


def test_missing_pytorch_is_explained(tmp_path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "torch" else find_spec(name)
    )
    ended = call("benchmarks/training_speed.py", "--torch", "--sample", cwd=tmp_path)
    assert_refused(ended, "pip install torch")


def test_pytorchs_twin_has_the_same_layers():
    model = load_experiment("dropout_augmentation_batchnorm").define_model()
    twins = pytorch_way.twin_layers(model)
    block = ["Conv2d", "ReLU", "BatchNorm2d"] * 2 + ["MaxPool2d", "Dropout"]
    top = ["Flatten", "Linear", "ReLU", "BatchNorm1d", "Dropout", "Linear"]
    assert [kind for kind, _ in twins] == block * 3 + top
    assert twins[0][1] == {"in_channels": 3, "out_channels": 32, "kernel_size": 3, "padding": 1}
    assert twins[2][1] == {"num_features": 32, "momentum": pytest.approx(0.01), "eps": 0.001}
    assert twins[7][1] == {"p": 0.2}
    assert twins[-1][1] == {"in_features": 128, "out_features": 10}


@pytest.mark.parametrize("name", TUTORIAL)
def test_pytorch_has_a_twin_of_each_experiment(name):
    kinds = [kind for kind, _ in pytorch_way.twin_layers(load_experiment(name).define_model())]
    assert kinds.count("Conv2d") == 2 * kinds.count("MaxPool2d") > 0


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.AveragePooling2D(2, name="mine"),
        keras.layers.Conv2D(8, 5, padding="same", name="mine"),
        keras.layers.Conv2D(8, 3, name="mine"),
        keras.layers.Conv2D(8, 3, padding="same", activation="gelu", name="mine"),
        keras.layers.MaxPooling2D(3, name="mine"),
    ],
)
def test_pytorchs_twin_leaves_no_layer_out(layer):
    inputs = keras.Input((32, 32, 3))
    with pytest.raises(ValueError, match="layer mine"):
        pytorch_way.twin_layers(keras.Model(inputs, layer(inputs)))


# Operations and steadiness


def test_operations_of_a_step_are_told(tmp_path):
    arguments = ("--sample", "--experiments", "baseline1")
    ended = run("benchmarks/operations.py", *arguments, cwd=tmp_path)
    rows = columns_of(ended, "baseline1")
    shares = {name: int(share.rstrip("%")) for name, (_, share) in rows.items()}
    backward = (percent for name, percent in shares.items() if "BackpropFilter" in name)
    assert sum(backward) > 10  # these are most of the work
    assert shares["everything else"] < 50
    assert shares["whole step"] == 100
    assert list(tmp_path.iterdir()) == []


def test_windows_count_images_per_second_of_training(monkeypatch):
    # Made; an epoch begins, after each of three batches; the same again, after an evaluation.
    clock = iter([0, 0, 2, 5, 6, 8, 12, 13, 14])
    monkeypatch.setattr(steadiness.time, "perf_counter", lambda: next(clock))
    windows = steadiness.Windows(seconds=14)
    windows.set_model(vgg(blocks=1))
    for epoch in range(2):
        windows.on_epoch_begin(epoch)
        for batch in range(3):
            windows.on_train_batch_end(batch)
    assert windows.speeds == [2 * 64 / 5, 2 * 64 / 5]
    assert windows.epoch_speeds == [3 * 64 / 8]
    assert windows.model.stop_training
