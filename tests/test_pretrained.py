"""The models that ship with the project, and how they are made."""

import os

import models.pretrained
from conftest import ROOT, a_result, assert_refused, call, captured, result
from experiments import load_experiment
from harness import load_dataset
from machinery.errors import UsageError, readable_errors
from machinery.final_model import load_final_model, save_final_model
from machinery.options import SHIPPED, model_to_use
from models.pretrained import shipped_features
from pretrained import ship

import keras
import numpy as np
import pytest
from PIL import Image

MODELS = [SHIPPED / "baseline3.h5", SHIPPED / "speedrun_94.h5"]


def test_both_together_are_small():
    assert sorted(SHIPPED.glob("*.h5")) == MODELS
    assert sum(path.stat().st_size for path in MODELS) < 6e6


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_model_was_trained_in_full_and_says_so(path):
    model, told = load_final_model(path)
    recorded = result(path.with_suffix(".json"))
    assert recorded == told | {"float16_test_accuracy": recorded["float16_test_accuracy"]}
    assert recorded["settings"]["experiment"] == path.stem and not recorded["remark"]
    assert recorded["epochs_trained"] == load_experiment(path.stem).epochs
    assert recorded["dataset"]["training_images"] == 50_000
    assert {layer.compute_dtype for layer in model.layers} == {"float32"}


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_model_is_as_good_as_it_says_on_the_images_of_the_sample(path, sample):
    """All 10,000 are another test's, see the end."""
    model, told = load_final_model(path)
    probabilities = model.predict(sample.x_test / np.float32(255), verbose=0)
    accuracy = 100 * (probabilities.argmax(axis=1) == sample.y_test).mean()
    assert abs(accuracy - told["test_accuracy"]) < 9  # three standard deviations of 250 images


def test_deer_is_known_right_after_the_clone(tmp_path):
    ended = call("predict.py", cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert f"Model: {MODELS[0]}, baseline3, 100 epochs, shipped with this project" in ended.output
    assert "\nsample_image.png: 4 deer (deer " in ended.output
    assert "expect mistakes" not in ended.output


@pytest.mark.parametrize("script", [("evaluate.py", "--sample"), ("explain.py",)])
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_other_commands_take_them_too(tmp_path, script, path):
    ended = call(*script, "--model", path, cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert f"{path.stem}, " in ended.output and "shipped with this project" in ended.output


def test_final_model_of_this_folder_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert model_to_use() == str(MODELS[0])
    for seconds, name in enumerate(("final_model.keras", "final_model.h5", "final_model.keras")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (seconds, seconds))
        assert model_to_use() == name  # the newest
    monkeypatch.chdir(ROOT)
    (tmp_path / "final_model.h5").unlink()
    if not list(ROOT.glob("final_model.*")):  # which a user may have there
        assert model_to_use() == "pretrained/baseline3.h5"


# Making them.


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a final model in bfloat16."""
    folder = tmp_path_factory.mktemp("trained")
    arguments = ("--sample", "--limit", 100, "--epochs", 1, "--mixed-precision")
    ended = call("finalize.py", "--experiment", "speedrun", *arguments, cwd=folder)
    assert ended.code == 0, ended.errors
    return folder


def call_ship(*arguments, cwd):
    """Run ship.py, with what was patched in its module."""

    def run():
        with readable_errors():
            ship.main()

    return captured(run, "ship.py", arguments, cwd)


def test_shipped_model_is_the_same_in_float32_with_weights_in_float16(trained, photos, monkeypatch):
    monkeypatch.setattr(ship, "LARGEST_DIFFERENCE", 100)  # it has hardly learned anything
    ended = call_ship("final_model.h5", "--sample", "--out", "ship", cwd=trained)
    assert ended.code == 0, ended.errors
    shipped, told = load_final_model(trained / "ship/final_model.h5")
    model, _ = load_final_model(trained / "final_model.h5")
    for weights, whole in zip(shipped.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weights, whole.astype("float16"))
    assert {layer.compute_dtype for layer in shipped.layers} == {"float32"}
    np.testing.assert_allclose(
        shipped.predict(photos, verbose=0), model.predict(photos, verbose=0), atol=0.03
    )
    size = (trained / "final_model.h5").stat().st_size
    assert (trained / "ship/final_model.h5").stat().st_size < 0.55 * size
    assert result(trained / "ship/final_model.json")["settings"] == told["settings"]


def test_model_that_loses_accuracy_is_not_shipped(trained, monkeypatch):
    monkeypatch.setattr(ship, "LARGEST_DIFFERENCE", -1)
    ended = call_ship("final_model.h5", "--sample", "--out", "lossy", cwd=trained)
    assert_refused(ended, "in float16, its accuracy differs by ")
    assert list((trained / "lossy").iterdir()) == []


def test_model_in_another_format_is_not_shipped(trained):
    assert_refused(call_ship("final_model.keras", cwd=trained), "must end in .h5")


# Transfer.


def test_only_the_new_layer_learns(sample, photos):
    model = load_experiment("transfer_shipped").define_model()
    before = [weights.copy() for weights in model.get_weights()]
    model.fit(photos[:32], keras.utils.to_categorical(sample.y_train[:32], 10), verbose=0)
    changed = [
        not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True)
    ]
    assert changed == [False] * (len(before) - 2) + [True, True]


@pytest.mark.parametrize("blocks", [2, 3])
def test_features_are_those_of_the_shipped_network(photos, blocks):
    shipped, _ = load_final_model(MODELS[1])
    kind = keras.layers.Conv2D if blocks == 2 else keras.layers.GlobalMaxPooling2D
    after = [layer for layer in shipped.layers if isinstance(layer, kind)][5 if blocks == 2 else 0]
    expected = keras.Model(shipped.input, after.input).predict(photos, verbose=0)
    inputs = keras.Input((32, 32, 3))
    features = keras.Model(inputs, shipped_features(inputs, blocks)).predict(photos, verbose=0)
    assert np.ptp(expected) > 0.5
    np.testing.assert_allclose(features, expected, atol=1e-4)


def test_shipped_network_that_is_damaged_is_named(tmp_path, monkeypatch):
    (tmp_path / "speedrun_94.h5").write_text("damaged")
    monkeypatch.setattr(models.pretrained, "SHIPPED", tmp_path)
    with pytest.raises(UsageError, match=r"speedrun_94\.h5: damaged or foreign"):
        shipped_features(keras.Input((32, 32, 3)))


def test_pictures_of_any_size_and_classes_are_learned(tmp_path):
    """Of colours that the features tell apart at once: what starts from nothing does not."""
    random = np.random.default_rng(0)
    colours = {"red": (200, 30, 30), "green": (30, 160, 30), "blue": (30, 30, 200)}
    for name, colour in colours.items():
        (tmp_path / "mine" / name).mkdir(parents=True)
        for number in range(15):
            pixels = np.clip(random.normal(colour, 25, size=(64, 64, 3)), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "mine" / name / f"{number}.png")
    ended = call(
        "extensions/transfer_shipped.py", "--data", "mine", "--image-size", 64, "--epochs", 20,
        cwd=tmp_path,
    )  # fmt: skip
    assert ended.code == 0, ended.errors
    assert result(tmp_path / "runs/transfer_shipped.json")["test_accuracy"] > 80


def test_transferred_model_is_saved_and_loaded(tmp_path, photos):
    model = load_experiment("transfer_shipped").define_model((64, 64, 3), 3)
    large = np.repeat(np.repeat(photos[:4], 2, axis=1), 2, axis=2)
    named = a_result("transfer_shipped") | {"dataset": {"class_names": ["a", "b", "c"]}}
    save_final_model(model, named, tmp_path / "final_model.h5")
    loaded, _ = load_final_model(tmp_path / "final_model.h5")
    np.testing.assert_allclose(
        loaded.predict(large, verbose=0), model.predict(large, verbose=0), atol=1e-5
    )


# On all test images.


@pytest.mark.dataset
@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_accuracy_is_that_of_the_json(path):
    model, _ = load_final_model(path)
    accuracy = ship.accuracy_of(model, *load_dataset()[2:])
    told = result(path.with_suffix(".json"))["float16_test_accuracy"]
    assert abs(accuracy - told) < 0.05  # processors differ
