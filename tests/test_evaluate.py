import re

from conftest import ROOT, a_result, assert_refused, call, colours, tiny_network
from data.dataset import CLASS_NAMES
from data.splits import hold_out
from harness import load_dataset
from machinery import diagnosis
from machinery.final_model import save_final_model

import keras
import numpy as np
import pytest


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The path of a saved model."""
    path = tmp_path_factory.mktemp("evaluate") / "my.h5"
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    training = a_result(remark="on 20 training images of the sample of CIFAR-10")
    save_final_model(tiny_network(), training, path)
    return path


@pytest.fixture(scope="module")
def evaluated(model):
    ended = call("evaluate.py", "--sample", "--model", model, cwd=model.parent)
    assert ended.code == 0, ended.errors
    return ended.output


def test_accuracy_is_that_of_the_model_on_all_test_images(evaluated, model, sample):
    predictions = keras.saving.load_model(model, compile=False).predict(
        sample.x_test / np.float32(255), verbose=0
    )
    accuracy = (predictions.argmax(axis=1) == sample.y_test).mean()
    assert f"\n> {100 * accuracy:.3f} (" in evaluated


def test_accuracy_is_told_with_the_images_that_it_is_from(evaluated):
    assert re.search(
        r"^> \S+ \(trained on 20 training images of the sample of CIFAR-10; "
        r"tested on the sample of CIFAR-10\)$",
        evaluated,
        re.M,
    )


def test_log_file_gets_lines_without_control_characters(evaluated):
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", evaluated)


def test_prediction_is_suggested_with_the_same_model(evaluated, model):
    assert evaluated.endswith(f"Next: python {ROOT}/predict.py --model {model}\n")


def test_accuracy_is_told_for_each_class_with_its_interval(evaluated):
    lines = re.findall(r"^  (\w+) +(\S+) %  \(95 % interval: (\S+) to (\S+) %\)$", evaluated, re.M)
    assert [name for name, *_ in lines] == list(CLASS_NAMES)
    accuracies = [tuple(map(float, numbers)) for _, *numbers in lines]
    assert all(least <= accuracy <= most for accuracy, least, most in accuracies)
    mean = float(re.search(r"^> (\S+)", evaluated, re.M)[1])  # of 25 images of each class
    assert np.mean([accuracy for accuracy, *_ in accuracies]) == pytest.approx(mean, abs=0.06)


def test_pictures_of_mistakes_and_trust_are_drawn(evaluated, model):
    for name in ("confusion", "mistakes", "reliability"):
        path = f"runs/evaluate_{name}.png"
        assert f"Picture: {path}\n" in evaluated
        assert len(colours(model.parent / path)) > 10


def test_temperature_is_that_of_images_held_out(tmp_path, monkeypatch, sample):
    holdout = ("--sample", "--epochs", 1, "--experiment", "baseline1", "--validation", "holdout")
    assert call("finalize.py", *holdout, cwd=tmp_path).code == 0
    drawn, fitted = [], []
    monkeypatch.setattr(diagnosis, "draw_reliability", lambda curves, *_: drawn.append(curves))
    monkeypatch.setattr(diagnosis, "fit_temperature", lambda _, on: fitted.append(on) or 2.0)
    assert call("evaluate.py", "--sample", cwd=tmp_path).code == 0
    trainX, trainY, *_ = load_dataset(sample)
    _, (_, held_out) = hold_out(trainX, trainY)
    np.testing.assert_array_equal(fitted, [held_out.argmax(axis=1)])
    (curves,) = drawn
    names = list(curves)
    assert names[0] == "the model" and re.fullmatch(r"with temperature \d+\.\d\d", names[1])


def test_missing_model_is_explained(tmp_path):
    ended = call("evaluate.py", "--sample", "--model", "mine.h5", cwd=tmp_path)
    assert_refused(ended, "no model mine.h5", "finalize.py --model mine.h5 --sample")
