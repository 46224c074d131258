import re
import sys

from conftest import ROOT, TINY, call, numbers, result
from experiments import EXPERIMENTS, TUTORIAL, load_experiment
from experiments.augmentation import flip_and_shift
from extensions import FROM_SCRATCH
from machinery.errors import UsageError

import keras
import numpy as np
import pytest
from PIL import Image

# The tutorial's epochs, accuracy and parameters. The last are counted by hand:
# a 3x3 convolution from a to b channels has (9a + 1)b, a dense layer (a + 1)b, and batch
# normalization four for each channel.
PROTOCOL = {
    "baseline1": (100, 67.07, 1_060_138),
    "baseline2": (100, 71.08, 591_274),
    "baseline3": (100, 73.50, 550_570),
    "dropout": (100, 83.45, 550_570),
    "weight_decay": (100, 72.55, 550_570),
    "augmentation": (100, 84.47, 550_570),
    "increasing_dropout": (200, 84.69, 550_570),
    "dropout_augmentation": (200, 85.88, 550_570),
    "dropout_augmentation_batchnorm": (400, 88.62, 550_570 + 4 * (2 * (32 + 64 + 128) + 128)),
}


def layers_of(name, kind):
    model = load_experiment(name).define_model()
    return [layer for layer in model.layers if isinstance(layer, kind)]


def test_table_of_contents_is_the_tutorials():
    assert list(TUTORIAL) == list(PROTOCOL)
    assert EXPERIMENTS[: len(TUTORIAL)] == TUTORIAL and "speedrun" in EXPERIMENTS


@pytest.mark.parametrize("name", PROTOCOL)
def test_experiment_follows_the_tutorial(name):
    experiment = load_experiment(name)
    model = experiment.define_model()
    measured = experiment.epochs, experiment.published_accuracy, model.count_params()
    assert measured == PROTOCOL[name]
    assert experiment.batch_size == 64
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.001)
    assert model.optimizer.momentum == pytest.approx(0.9)
    assert model.loss == "categorical_crossentropy"


@pytest.mark.parametrize("name", [*EXPERIMENTS, *FROM_SCRATCH])
def test_pictures_of_any_size_and_any_classes_are_taken(name):
    model = load_experiment(name).define_model((64, 64, 3), 3)
    assert (model.input_shape, model.output_shape) == ((None, 64, 64, 3), (None, 3))
    probabilities = model(np.zeros((1, 64, 64, 3), np.float32), training=False)
    assert float(probabilities.numpy().sum()) == pytest.approx(1, abs=1e-3)


def test_pictures_too_small_for_the_speed_run_are_refused_by_name():
    with pytest.raises(UsageError, match="--image-size 16"):
        load_experiment("speedrun").define_model((8, 8, 3), 3)
    assert load_experiment("speedrun").define_model((16, 16, 3), 3).output_shape == (None, 3)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_docstring_tells_the_published_accuracy(name):
    accuracy = load_experiment(name).published_accuracy
    told = re.search(
        r"Published test accuracy: (\S+) %", sys.modules[f"experiments.{name}"].__doc__
    )
    if name in TUTORIAL:
        assert float(told[1]) == accuracy
    else:  # what is not the tutorial's has a target, or none
        assert told is None or float(told[1]) == accuracy


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("baseline3", []),
        ("dropout", [0.2, 0.2, 0.2, 0.2]),
        ("increasing_dropout", [0.2, 0.3, 0.4, 0.5]),
        ("dropout_augmentation", [0.2, 0.2, 0.2, 0.2]),
        ("dropout_augmentation_batchnorm", [0.2, 0.3, 0.4, 0.5]),
    ],
)
def test_dropout_rates(name, rates):
    assert [layer.rate for layer in layers_of(name, keras.layers.Dropout)] == rates


@pytest.mark.parametrize("name", TUTORIAL)
def test_augmentation_flips_and_shifts_by_a_tenth_before_the_first_block(name):
    model = load_experiment(name).define_model()
    kinds = [type(layer) for layer in model.layers]
    random = keras.layers.RandomFlip, keras.layers.RandomTranslation
    if "augmentation" not in name:
        assert not set(kinds) & set(random)
        return
    assert tuple(kinds[1:3]) == random
    flip, shift = model.layers[1:3]
    assert flip.mode == "horizontal" and shift.fill_mode == "nearest"
    assert (shift.height_factor, shift.width_factor) == (0.1, 0.1)


def test_augmentation_changes_each_image_in_training_only(photos):
    keras.config.set_dtype_policy("mixed_bfloat16")
    changed = photos
    for layer in flip_and_shift():
        np.testing.assert_array_equal(layer(photos, training=False), photos)
        changed = layer(changed, training=True)
    assert changed.dtype == "float32"  # bfloat16 would round the pixels
    assert (np.abs(changed - photos).max(axis=(1, 2, 3)) > 0.01).mean() > 0.95


def test_weight_decay_is_on_all_weights_but_those_of_the_output():
    weighted = layers_of("weight_decay", (keras.layers.Conv2D, keras.layers.Dense))
    decays = [layer.kernel_regularizer and layer.kernel_regularizer.l2 for layer in weighted]
    assert decays[:-1] == [pytest.approx(0.001)] * 7
    assert decays[-1] is None


def test_batch_normalization_follows_every_convolution_and_the_dense_layer():
    normalizations = layers_of("dropout_augmentation_batchnorm", keras.layers.BatchNormalization)
    assert len(normalizations) == 6 + 1


@pytest.mark.parametrize("name", PROTOCOL)
def test_experiment_leaves_curves_numbers_and_result(tmp_path, name):
    ended = call(f"experiments/{name}.py", *TINY, "--epochs", 1, cwd=tmp_path)
    assert ended.code == 0, ended.errors

    accuracy = re.search(
        r"^> (\d+\.\d{3}) \(on 20 training images of the sample", ended.output, re.M
    )
    recorded = result(tmp_path / "runs" / f"{name}.json")
    assert float(accuracy[1]) == pytest.approx(recorded["test_accuracy"], abs=1e-3)
    assert recorded["published_accuracy"] == PROTOCOL[name][1]
    assert recorded["parameters"] == PROTOCOL[name][2]
    assert recorded["dataset"]["training_images"] == 20
    assert recorded["settings"]["batch_size"] == 16  # a quarter, for the sample

    (row,) = numbers(tmp_path / "runs" / f"{name}.csv")
    assert float(row["test_accuracy"]) == pytest.approx(recorded["test_accuracy"], abs=1e-3)
    with Image.open(tmp_path / "runs" / f"{name}.png") as curves:
        assert curves.size == (800, 800)
    for suffix in ("png", "csv", "json"):
        assert f"runs/{name}.{suffix}" in ended.output
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == [
        f"{name}.csv", f"{name}.json", f"{name}.png",
    ]  # fmt: skip
    assert f"Next:            python {ROOT}/compare.py\n" in ended.output
