"""The five steps: load, prepare, define, evaluate, present."""

import re
from functools import partial

import harness
from conftest import (
    BLUE,
    ORANGE,
    TINY,
    assert_refused,
    colours,
    numbers,
    result,
    tiny_network,
    train,
)
from harness import Experiment, load_dataset, prep_pixels, summarize_diagnostics
from machinery.errors import UsageError
from models.vgg import vgg
from test_records import HISTORY

import keras
import numpy as np
import pytest

ONE = (*TINY, "--epochs", 1)


# 1. Load


def test_load_dataset_gives_uint8_images_and_one_hot_labels(sample):
    trainX, trainY, testX, testY = load_dataset(sample)
    assert (trainX.shape, trainX.dtype) == ((1000, 32, 32, 3), np.uint8)
    assert (testX.shape, testX.dtype) == ((250, 32, 32, 3), np.uint8)
    assert (trainY.shape, testY.shape) == ((1000, 10), (250, 10))
    np.testing.assert_array_equal(trainY.argmax(axis=1), sample.y_train)
    np.testing.assert_array_equal(trainY.sum(axis=1), 1)


def test_load_dataset_finds_the_images_itself(sample, monkeypatch):
    monkeypatch.setattr(harness, "find_dataset", lambda: sample)
    np.testing.assert_array_equal(load_dataset()[0], sample.x_train)


def test_limit_keeps_the_classes_balanced(sample):
    trainX, trainY, testX, testY = load_dataset(sample, limit=100)
    assert (len(trainX), len(testX)) == (100, 20)
    assert trainY.sum(axis=0).tolist() == [10] * 10
    assert testY.sum(axis=0).tolist() == [2] * 10


def test_limit_above_the_data_is_refused(sample):
    with pytest.raises(UsageError, match="above the 1,000 training images"):
        load_dataset(sample, limit=1001)


def test_holdout_evaluates_on_validation_images(tmp_path):
    arguments = (*ONE, "--limit", 100, "--validation", "holdout")
    ended = train(Experiment(tiny_network, 100), *arguments, cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert "validation_accuracy" in ended.output
    data = result(tmp_path / "runs" / "mine.json")["dataset"]
    counts = data["training_images"], data["validation_images"], data["test_images"]
    assert counts == (90, 10, 20)
    (row,) = numbers(tmp_path / "runs" / "mine.csv")
    assert "validation_loss" in row and "test_loss" not in row


def test_fold_is_evaluated_on_and_recorded(tmp_path):
    arguments = (*ONE, "--limit", 50, "--fold", "2/5")
    ended = train(Experiment(tiny_network, 100), *arguments, cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert "(trained without fold 2/5; " in ended.output
    recorded = result(tmp_path / "runs/fold_2_of_5/mine.json")
    assert recorded["settings"]["fold"] == "2/5"
    data = recorded["dataset"]
    assert (data["training_images"], data["validation_images"]) == (40, 10)
    (row,) = numbers(tmp_path / "runs/fold_2_of_5/mine.csv")
    assert "validation_loss" in row and "test_loss" not in row


def test_settings_of_a_run_without_a_fold_have_none(tmp_path):
    train(Experiment(tiny_network, 100), *ONE, cwd=tmp_path)
    assert "fold" not in result(tmp_path / "runs/mine.json")["settings"]


def test_test_images_are_not_looked_at_before_the_end_of_a_holdout(tmp_path, monkeypatch):
    seen = []

    class Watch(harness.Batches):
        def __getitem__(self, step):
            seen.append(len(self.images))
            return super().__getitem__(step)

    monkeypatch.setattr(harness, "Batches", Watch)
    arguments = (*ONE, "--limit", 100, "--validation", "holdout")
    train(Experiment(tiny_network, 100), *arguments, cwd=tmp_path)
    assert set(seen) == {10, 20}
    assert 10 not in seen[seen.index(20) :]


# 2. Prepare


def test_prep_pixels_scales_to_one(sample):
    train, test = prep_pixels(sample.x_train, sample.x_test)
    assert train.dtype == test.dtype == np.float32
    assert train.min() >= 0 and train.max() == 1
    np.testing.assert_allclose(test, sample.x_test / 255.0, rtol=1e-6)


def test_augmentation_is_for_training_images_only(tmp_path, sample):
    seen = []

    def blacken(images, labels, indices, epoch, random):
        seen.extend((image.tobytes(), epoch) for image in images)
        return images * 0, labels

    experiment = Experiment(tiny_network, 2, augment=blacken)
    ended = train(experiment, *TINY, "--epochs", 2, cwd=tmp_path)
    assert ended.code == 0, ended.errors
    (trainX,) = prep_pixels(load_dataset(sample, limit=20)[0])
    assert set(seen) == {(image.tobytes(), epoch) for image in trainX for epoch in (0, 1)}


# 3. Define


def test_network_is_initialized_with_the_training_images(tmp_path):
    seen = []

    def initialize(model, images):
        seen.append((type(model), images.shape, images.dtype))

    train(Experiment(tiny_network, 1, initialize=initialize), *ONE, cwd=tmp_path)
    assert seen == [(keras.Sequential, (20, 32, 32, 3), np.uint8)]


@pytest.mark.parametrize(
    ("option", "dtype"), [("--mixed-precision", "bfloat16"), ("--no-mixed-precision", "float32")]
)
def test_precision_is_chosen_and_recorded(tmp_path, option, dtype):
    models = []

    def define_model(*shape):
        models.append(tiny_network())
        return models[0]

    ended = train(Experiment(define_model, 1), *ONE, option, cwd=tmp_path)
    assert f"mine: 1,634 parameters, epochs: 1, batch size: 16, computed in {dtype}" in ended.output
    assert [layer.compute_dtype for layer in models[0].layers][-2:] == [dtype, "float32"]
    assert {weight.dtype for weight in models[0].weights} == {"float32"}
    recorded = result(tmp_path / "runs" / "mine.json")
    assert recorded["settings"]["mixed_precision"] == (dtype == "bfloat16")


def test_batch_normalization_is_fused(tmp_path):
    models = []

    def define_model(*shape):
        models.append(vgg(blocks=1, batch_norm=True))
        return models[0]

    train(Experiment(define_model, 1), *ONE, cwd=tmp_path)
    normalizations = [
        layer for layer in models[0].layers if isinstance(layer, keras.layers.BatchNormalization)
    ]
    assert ["call" in vars(layer) for layer in normalizations] == [True, True, False]


# 4. Evaluate


def test_accuracy_is_that_of_the_model_on_the_test_images(tmp_path, sample):
    models = []

    def define_model(*shape):
        models.append(tiny_network())
        return models[0]

    train(Experiment(define_model, 1), *ONE, "--no-mixed-precision", cwd=tmp_path)
    _, _, testX, testY = load_dataset(sample, limit=20)
    (testX,) = prep_pixels(testX)
    loss, accuracy = models[0].evaluate(testX, testY, verbose=0)
    recorded = result(tmp_path / "runs" / "mine.json")
    assert recorded["test_accuracy"] == pytest.approx(100 * accuracy, abs=1e-3)
    assert recorded["test_loss"] == pytest.approx(loss, abs=1e-5)


def test_model_is_tested_with_its_test_time_augmentation(tmp_path):
    """The accuracy of a model that answers airplane to everything: a tenth, whatever is trained."""

    def always_airplane(model):
        other = keras.Sequential(
            [keras.Input((32, 32, 3)), keras.layers.Flatten(), keras.layers.Dense(10)]
        )
        other.layers[-1].set_weights([np.zeros((3072, 10)), np.eye(10)[0]])
        other.compile(loss="mse", metrics=["accuracy"])
        return other

    experiment = Experiment(tiny_network, 1, test_time_augmentation=always_airplane)
    train(experiment, *ONE, cwd=tmp_path)
    recorded = result(tmp_path / "runs" / "mine.json")
    assert recorded["test_accuracy"] == pytest.approx(10)
    assert recorded["test_loss"] == pytest.approx(0.18, abs=1e-4)  # 9 in 10 are twice wrong


def test_more_epochs_learn_the_training_images(tmp_path):
    experiment = Experiment(
        partial(tiny_network, units=32, optimizer=keras.optimizers.Adam(0.01)), 20
    )
    train(experiment, *TINY, "--epochs", 12, cwd=tmp_path)
    rows = numbers(tmp_path / "runs" / "mine.csv")
    assert [int(row["epoch"]) for row in rows] == list(range(1, 13))
    assert float(rows[-1]["train_loss"]) < 0.8 * float(rows[0]["train_loss"])
    assert float(rows[-1]["train_accuracy"]) > float(rows[0]["train_accuracy"])


class CountTraces(keras.layers.Layer):
    traces = 0

    def call(self, images, training=False):
        CountTraces.traces += bool(training)
        return images


def test_training_step_is_traced_once(tmp_path, monkeypatch):
    def define_model(*shape):
        return vgg(*shape, blocks=1, preprocessing=[CountTraces()])

    monkeypatch.setattr(CountTraces, "traces", 0)
    ended = train(Experiment(define_model, 2), *TINY, "--epochs", 2, cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert CountTraces.traces == 1


def test_other_metrics_may_stand_beside_the_accuracy(tmp_path):
    def define_model(*shape):
        model = tiny_network(*shape)
        model.compile("sgd", "mse", metrics=[keras.metrics.Precision(), "accuracy"])
        return model

    ended = train(Experiment(define_model, 1), *ONE, cwd=tmp_path)
    assert ended.code == 0, ended.errors
    recorded = result(tmp_path / "runs" / "mine.json")
    (row,) = numbers(tmp_path / "runs" / "mine.csv")
    assert recorded["test_accuracy"] == pytest.approx(float(row["test_accuracy"]))
    assert recorded["test_loss"] == pytest.approx(float(row["test_loss"]), abs=1e-5)


def test_model_that_tells_no_accuracy_is_refused(tmp_path):
    def define_model(*shape):
        model = tiny_network(*shape)
        model.compile("sgd", "mse", metrics=["acc"])
        return model

    ended = train(Experiment(define_model, 1), *ONE, cwd=tmp_path)
    assert_refused(ended, 'compile it with metrics=["accuracy"]')


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.flatten, self.dense = keras.layers.Flatten(), keras.layers.Dense(10)

    def call(self, images):
        return keras.ops.softmax(self.dense(self.flatten(images)))


@pytest.mark.parametrize(
    "make",
    [Subclassed, lambda: keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(10)])],
)
def test_model_whose_layers_keras_does_not_know_is_refused(tmp_path, make):
    def define_model(*shape):
        model = make()
        model.compile("sgd", "mse", metrics=["accuracy"])
        return model

    ended = train(Experiment(define_model, 1), *ONE, cwd=tmp_path)
    assert_refused(ended, "a Sequential that begins with keras.Input")


def test_smallest_batches_of_the_sample_have_an_image(tmp_path):
    ended = train(Experiment(tiny_network, 1, batch_size=2), *ONE, cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert result(tmp_path / "runs" / "mine.json")["settings"]["batch_size"] == 1


def test_log_file_gets_lines_without_control_characters(tmp_path):
    ended = train(Experiment(tiny_network, 1), *TINY, "--epochs", 2, cwd=tmp_path)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", ended.output)
    assert len(re.findall(r"^2/2 - .*accuracy: .* - test_loss: ", ended.output, re.M)) == 2


# 5. Present


def test_learning_curves_are_blue_and_orange(tmp_path):
    summarize_diagnostics(HISTORY, tmp_path / "curves.png", "a title")
    assert {BLUE, ORANGE} <= colours(tmp_path / "curves.png")


def test_learning_curves_of_a_single_epoch_and_of_validation_images(tmp_path):
    history = {name.replace("test", "validation"): values[:1] for name, values in HISTORY.items()}
    summarize_diagnostics(history, tmp_path / "curves.png", "a title")
    assert {BLUE, ORANGE} <= colours(tmp_path / "curves.png")


def test_model_is_handed_over_before_the_run_counts_as_finished(tmp_path, monkeypatch):
    seen = []

    def save_model(model, recorded):
        seen.append(recorded["test_accuracy"])
        seen.append(result(tmp_path / "runs" / "other.json")["finished"])

    run_experiment = harness.run_experiment

    def with_model(name, experiment, options):
        run_experiment(name, experiment, options, "other", save_model)

    monkeypatch.setattr(harness, "run_experiment", with_model)
    assert train(Experiment(tiny_network, 1), *ONE, cwd=tmp_path).code == 0
    recorded = result(tmp_path / "runs" / "other.json")
    assert seen == [recorded["test_accuracy"], None] and recorded["finished"]
    assert (recorded["name"], recorded["settings"]["experiment"]) == ("other", "mine")
