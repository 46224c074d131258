import importlib
import sys

import harness
from finalize import EXPERIMENTS
from harness import (
    Experiment,
    evaluation_batches,
    hold_out,
    load_dataset,
    prep_pixels,
    run_test_harness,
    summarize_diagnostics,
    training_batches,
)
from models.vgg import vgg
from results import load_final_model, read_history, save_final_model, write_history

import keras
import numpy as np
import pytest
from dataset import DatasetError
from options import UsageError, option_parser, parse_options
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
    model = importlib.import_module(f"experiments.{name}").define_model()
    return [layer for layer in model.layers if isinstance(layer, kind)]


def test_finalize_offers_all_experiments():
    assert set(EXPERIMENTS) == {*PROTOCOL, "speedrun"}


@pytest.mark.parametrize("name", PROTOCOL)
def test_experiment_follows_the_tutorial(name):
    experiment = importlib.import_module(f"experiments.{name}").EXPERIMENT
    model = experiment.define_model()
    measured = experiment.epochs, experiment.published_accuracy, model.count_params()
    assert measured == PROTOCOL[name]
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.001)
    assert model.optimizer.momentum == pytest.approx(0.9)
    assert model.loss == "categorical_crossentropy"


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


def test_weight_decay_is_on_all_weights_but_those_of_the_output():
    weighted = layers_of("weight_decay", (keras.layers.Conv2D, keras.layers.Dense))
    decays = [layer.kernel_regularizer and layer.kernel_regularizer.l2 for layer in weighted]
    assert decays[:-1] == [pytest.approx(0.001)] * 7
    assert decays[-1] is None


def test_batch_normalization_follows_every_convolution_and_the_dense_layer():
    assert (
        len(layers_of("dropout_augmentation_batchnorm", keras.layers.BatchNormalization)) == 6 + 1
    )


def test_wrong_number_of_dropout_rates_is_refused():
    with pytest.raises(ValueError, match="need 4 dropout rates, got 2"):
        vgg(blocks=3, dropout_rates=(0.2, 0.5))


def test_load_dataset_gives_uint8_images_and_one_hot_labels(sample):
    trainX, trainY, testX, testY = load_dataset(sample)
    assert (trainX.shape, trainX.dtype) == ((1000, 32, 32, 3), np.uint8)
    assert (testX.shape, testX.dtype) == ((250, 32, 32, 3), np.uint8)
    assert (trainY.shape, testY.shape) == ((1000, 10), (250, 10))
    np.testing.assert_array_equal(trainY.argmax(axis=1), sample.y_train)
    np.testing.assert_array_equal(trainY.sum(axis=1), 1)


def test_limit_keeps_the_classes_balanced(sample):
    trainX, trainY, testX, testY = load_dataset(sample, limit=100)
    assert (len(trainX), len(testX)) == (100, 20)
    assert trainY.sum(axis=0).tolist() == [10] * 10
    assert testY.sum(axis=0).tolist() == [2] * 10


def test_limit_above_the_data_is_refused(sample):
    with pytest.raises(DatasetError, match="above the 1,000 training images"):
        load_dataset(sample, limit=1001)


def test_prep_pixels_scales_to_one(sample):
    train, test = prep_pixels(sample.x_train, sample.x_test)
    assert train.dtype == test.dtype == np.float32
    assert train.min() >= 0 and train.max() == 1
    np.testing.assert_allclose(test, sample.x_test / 255.0, rtol=1e-6)


def test_hold_out_splits_a_balanced_tenth_off(sample):
    trainX, trainY, _, _ = load_dataset(sample)
    (kept, kept_labels), (held_out, held_out_labels) = hold_out(trainX, trainY)
    assert (len(kept), len(held_out)) == (900, 100)
    assert held_out_labels.sum(axis=0).tolist() == [10] * 10
    assert kept_labels.sum(axis=0).tolist() == [90] * 10
    every = {image.tobytes() for image in trainX}
    assert {image.tobytes() for image in (*kept, *held_out)} == every


def epochs_of(count, first_epoch=0, seed=0):
    """The order in which 20 numbered images come, for `count` epochs of batches of 8, 8 and 4."""
    images = np.zeros((20, 1, 1, 1), np.uint8)
    batches = training_batches(images, np.arange(20), 8, seed, first_epoch=first_epoch)
    order = np.concatenate([labels for _, labels in batches.take(3 * count).as_numpy_iterator()])
    return order.reshape(count, 20).tolist()


def test_every_epoch_shows_every_image_once_in_another_order():
    first, second = epochs_of(2)
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second != list(range(20))


def test_an_epoch_has_the_same_order_however_training_got_there():
    assert epochs_of(2)[1] == epochs_of(1, first_epoch=1)[0]


def test_another_seed_gives_another_order():
    assert epochs_of(1, seed=0) != epochs_of(1, seed=2**32 - 1)


def test_images_and_labels_stay_together(sample):
    images, numbers = sample.x_train[:50], np.arange(50)
    expected, _ = prep_pixels(images, images)
    for batch, order in training_batches(images, numbers, 16, seed=0).take(4).as_numpy_iterator():
        assert batch.dtype == np.float32
        np.testing.assert_allclose(batch, expected[order], atol=1e-7)


def test_evaluation_batches_hold_every_image_once_in_order(sample):
    batches = list(evaluation_batches(sample.x_train, sample.y_train).as_numpy_iterator())
    images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    np.testing.assert_allclose(images, prep_pixels(sample.x_train, images[:1])[0], atol=1e-7)
    np.testing.assert_array_equal(labels, sample.y_train)


HISTORY = {
    "epoch": [1, 2, 3],
    "train_loss": [2.0, 1.5, 1.0],
    "train_accuracy": [30.0, 45.0, 60.0],
    "test_loss": [1.8, 1.6, 1.7],
    "test_accuracy": [32.0, 40.0, 41.0],
    "seconds": [1.5, 1.0, 1.0],
}


def colours(path):
    image = np.asarray(Image.open(path).convert("RGB")).reshape(-1, 3)
    return {tuple(map(int, colour)) for colour in np.unique(image, axis=0)}


def test_learning_curves_are_blue_and_orange(tmp_path):
    summarize_diagnostics(HISTORY, tmp_path / "curves.png", "a title")
    assert {(0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)} <= colours(tmp_path / "curves.png")


def test_history_survives_the_csv(tmp_path):
    write_history(tmp_path / "run.csv", HISTORY)
    assert read_history(tmp_path / "run.csv") == HISTORY
    assert read_history(tmp_path / "run.csv", epochs=2)["train_loss"] == [2.0, 1.5]


def test_csv_that_lacks_epochs_is_refused(tmp_path):
    write_history(tmp_path / "run.csv", HISTORY)
    with pytest.raises(UsageError, match="lacks some of the 4 epochs"):
        read_history(tmp_path / "run.csv", epochs=4)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--epochs", "0"], "--epochs: '0' is not a whole number of at least 1"),
        (["--epochs", "ten"], "--epochs: 'ten' is not a whole number"),
        (["--batch-size", "-64"], "--batch-size"),
        (["--seed", "-1"], "--seed"),
        (["--seed", str(2**32)], "--seed"),
        (["--limit", "19"], "--limit"),
        (["--limit", "50001"], "50001 is above the 50,000 training images"),
        (["--limit", "1001", "--sample"], "1001 is above the 1,000 training images"),
        (["--validation", "train"], "--validation"),
        (["--sample", "--data", "here"], "--data"),
        (["--out", "/dev/null/runs"], "can't write to /dev/null/runs"),
        (["--epoch", "3"], "--epoch"),
    ],
)
def test_senseless_options_are_refused_in_one_line(monkeypatch, capsys, arguments, reason):
    monkeypatch.setattr(sys, "argv", ["baseline1.py", *arguments])
    with pytest.raises(SystemExit) as refusal:
        parse_options(option_parser(100))
    usage, error = capsys.readouterr().err.strip().splitlines()
    assert refusal.value.code == 2
    assert usage == "usage: baseline1.py [options]"
    assert reason in error


def test_run_killed_after_its_last_epoch_can_be_resumed(monkeypatch, tmp_path, capsys):
    arguments = ["--sample", "--limit", "20", "--epochs", "1", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["baseline1.py", *arguments])

    def killed(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(harness, "summarize_diagnostics", killed)
        run_test_harness("baseline1.py", Experiment(lambda: vgg(blocks=1), 100, 67.07))
    assert "error: disk full" in capsys.readouterr().err

    sys.argv.append("--resume")
    run_test_harness("baseline1.py", Experiment(lambda: vgg(blocks=1), 100, 67.07))
    assert "Resuming after epoch 1 of 1" in capsys.readouterr().out
    assert (tmp_path / "baseline1.png").exists()
    run_test_harness("baseline1.py", Experiment(lambda: vgg(blocks=1), 100, 67.07))
    assert "nothing to resume" in capsys.readouterr().out


def test_saved_model_predicts_the_same_in_stock_keras(tmp_path, sample):
    model = vgg(blocks=1)
    images, _ = prep_pixels(sample.x_train[:10], sample.x_test)
    save_final_model(model, {}, tmp_path / "model.h5")
    loaded = keras.saving.load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(
        loaded.predict(images, verbose=0), model.predict(images, verbose=0)
    )


def test_foreign_models_are_refused(tmp_path):
    small = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    result = {"settings": {"experiment": "baseline3", "epochs": 1}}
    save_final_model(small, result, tmp_path / "small.h5")
    (tmp_path / "text.h5").write_text("not a model")
    small.save(tmp_path / "keras.h5")
    for name in ("small.h5", "text.h5", "keras.h5"):
        with pytest.raises(UsageError, match=f"{name} is not a model that finalize.py saved"):
            load_final_model(tmp_path / name)
