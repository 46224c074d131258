import importlib
import importlib.util
import re
from argparse import Namespace

import benchmark
import harness
from benchmark import IDEAS, Windows, train_with_the_harness
from conftest import run
from models.vgg import vgg
from results import operations_per_image

import pytest
from keras import layers


def test_operations_are_those_counted_by_hand():
    # Multiplications of one image in baseline1: 32 x 32 pixels, 9 neighbours, channels in and out.
    first, second = 1024 * 9 * 3 * 32, 1024 * 9 * 32 * 32
    dense = 16 * 16 * 32 * 128 + 128 * 10
    expected = 2 * (2 * first + 3 * (second + dense))
    assert operations_per_image(vgg(blocks=1)) == expected


def test_operations_of_fixed_layers_are_forward_only():
    model = vgg(blocks=1)
    model.layers[1].trainable = False
    first, second = 1024 * 9 * 3 * 32, 1024 * 9 * 32 * 32
    dense = 16 * 16 * 32 * 128 + 128 * 10
    assert operations_per_image(model) == 2 * (first + 2 * second + 3 * dense)


def test_benchmark_compares_both_ways(tmp_path):
    arguments = ("--sample", "--rounds", 1, "--experiments", "augmentation", "--without")
    process = run("benchmark.py", *arguments, "bfloat16", cwd=tmp_path)
    assert process.returncode == 0, process.errors
    rows = re.findall(r"^\| `augmentation` \| ([\w ]+) \| (.*) \|$", process.output, re.M)
    assert [way for way, _ in rows] == ["plain", "ours", "without bfloat16"]
    for _, columns in rows:
        training, _, _, gflops, epoch, ratio, memory = columns.split(" | ")
        assert float(training.replace(",", "")) > float(epoch.replace(",", "")) > 0
        assert float(gflops) > 1
        assert re.fullmatch(r"\d+\.\d\d \(\d+\.\d\d to \d+\.\d\d\)", ratio)
        assert re.fullmatch(r"\d\.\d\d GB", memory)
    assert re.search(r"bfloat16, GFLOP/s: \d+", process.output)
    assert list(tmp_path.iterdir()) == []  # a benchmark leaves nothing behind


@pytest.mark.parametrize("idea", IDEAS)
def test_every_idea_can_be_left_out(monkeypatch, idea):
    for name in ("fuse_batch_norm", "save_random_bits", "EVALUATION_BATCH_SIZE", "UNTUNED"):
        monkeypatch.setattr(harness, name, getattr(harness, name))  # as it was, after the test

    def recipe(without):
        def remember(name, experiment, options):
            model = experiment.define_model()
            harness.fuse_batch_norm(model)
            harness.save_random_bits(model)
            seen.extend(
                "call" in vars(layer)
                for kind in (layers.BatchNormalization, layers.Dropout)
                for layer in model.layers
                if isinstance(layer, kind)
            )
            seen.extend([
                options.mixed_precision, experiment.augment is None, len(model.layers),
                harness.EVALUATION_BATCH_SIZE, harness.UNTUNED.autotune.enabled,
            ])  # fmt: skip

        seen = []
        monkeypatch.setattr(benchmark, "run_with_the_harness", remember)
        options = Namespace(mixed_precision=True)
        train_with_the_harness(None, "dropout_augmentation_batchnorm", options, without=without)
        return seen

    assert recipe(None) != recipe(idea)


def test_profile_tells_the_operations_of_a_step(tmp_path):
    process = run(
        "benchmark.py", "--profile", "--sample", "--experiments", "baseline1", cwd=tmp_path
    )
    assert process.returncode == 0, process.errors
    rows = re.findall(r"^\| `baseline1` \| (.*) \| (\d+\.\d) \| (\d+)% \|$", process.output, re.M)
    shares = {operation: int(percent) for operation, _, percent in rows}
    backward = (percent for name, percent in shares.items() if "BackpropFilter" in name)
    assert sum(backward) > 10  # these are most of the work
    assert shares["everything else"] < 50
    assert shares["whole step"] == 100
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "batches"), [(("--images", "5000"), 78), (("--sample",), 15)]
)
def test_epochs_are_whole_batches(monkeypatch, arguments, batches):
    seen = []
    monkeypatch.setattr(benchmark, "compare_ways", seen.append)
    monkeypatch.setattr("sys.argv", ["benchmark.py", *arguments])
    benchmark.main()
    assert seen[0].images == batches * 64


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--profile", "--without"), "compare speeds"),
        (("--steady", 1, "--without"), "compare speeds"),
        (("--images", 959), "from 960 to 50000"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path, arguments, reason):
    process = run("benchmark.py", *arguments, cwd=tmp_path)
    assert process.returncode == 2
    assert reason in process.errors and "Traceback" not in process.errors


@pytest.mark.skipif(importlib.util.find_spec("torch") is not None, reason="PyTorch is installed")
def test_missing_pytorch_is_explained(tmp_path):
    process = run("benchmark.py", "--torch", "--sample", cwd=tmp_path)
    assert process.returncode == 2
    assert "pip install torch" in process.errors


def test_windows_count_images_per_second(monkeypatch):
    clock = iter([0, 0, 2, 5, 9, 12])  # made, epoch begins, after each of four batches
    monkeypatch.setattr("benchmark.time.perf_counter", lambda: next(clock))
    windows = Windows(seconds=11)
    windows.set_model(vgg(blocks=1))
    windows.on_epoch_begin(0)
    for batch in range(4):
        windows.on_train_batch_end(batch)
    assert windows.speeds == [2 * 64 / 5, 2 * 64 / 7]
    assert windows.model.stop_training
