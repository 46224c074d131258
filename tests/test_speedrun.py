import signal

from conftest import interrupt_after_first_epoch, numbers, result, run, start
from experiments.speedrun import (
    IDEAS,
    Lookahead,
    TriangularLearningRate,
    average_views,
    define_model,
    experiment,
    flip_and_shift,
    start_as_identity,
    whiten,
)
from harness import prep_pixels

import keras
import numpy as np
import pytest
import tensorflow as tf

SPEEDRUN = "experiments/speedrun.py"
WIDTHS = (24, 24, 32)


@pytest.fixture(scope="module")
def photos(sample):
    return prep_pixels(sample.x_train[:64], sample.x_test)[0]


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return define_model(WIDTHS)


def test_whitened_outputs_are_uncorrelated_and_of_equal_variance(model, sample, photos):
    whiten(model, sample.x_train)
    layer = model.get_layer("whitening")
    images, _ = prep_pixels(sample.x_train, sample.x_test)
    outputs = layer(model.layers[1](images)).numpy().reshape(-1, 24)
    np.testing.assert_allclose(outputs[:, 12:], -outputs[:, :12], atol=1e-5)
    covariance = outputs[:, :12].T @ outputs[:, :12] / len(outputs)
    # Directions in which patches hardly vary are amplified less.
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-2
    assert np.diag(covariance).max() < 1.01 and np.median(np.diag(covariance)) > 0.9


def test_whitening_keeps_its_precision_when_the_rest_is_in_bfloat16(sample, photos):
    outputs = []
    for policy in ("float32", "mixed_bfloat16"):
        keras.config.set_dtype_policy(policy)
        model = define_model(WIDTHS)
        whiten(model, sample.x_train)
        assert model.layers[4].compute_dtype == ("bfloat16" if "16" in policy else "float32")
        whitened = keras.Model(model.input, model.get_layer("whitening").output)
        outputs.append(whitened.predict(photos, verbose=0).astype("float32"))
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-3)


def test_whitening_does_not_learn(model, sample):
    whiten(model, sample.x_train)
    before = model.get_layer("whitening").kernel.numpy()
    images, _ = prep_pixels(sample.x_train[:10], sample.x_test)
    model.fit(images, keras.utils.to_categorical(sample.y_train[:10], 10), verbose=0)
    np.testing.assert_array_equal(model.get_layer("whitening").kernel, before)


def test_convolutions_start_by_passing_their_input_on(photos):
    inputs = keras.Input((8, 8, 5))
    network = keras.Model(inputs, keras.layers.Conv2D(7, 3, padding="same")(inputs))
    start_as_identity(network)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 5)).astype("float32")
    outputs = network(images).numpy()
    np.testing.assert_allclose(outputs[..., :5], images, atol=1e-6)
    assert np.abs(outputs[..., 5:]).min() > 0


def test_biases_learn_faster(sample):
    def change(without):
        keras.utils.set_random_seed(0)
        model = define_model(WIDTHS, without)
        images, _ = prep_pixels(sample.x_train[:10], sample.x_test)
        model.train_on_batch(images, keras.utils.to_categorical(sample.y_train[:10], 10))
        (bias,) = (w for w in model.get_layer(index=6).trainable_weights if w.name == "beta")
        return bias.numpy(), model.layers[-3].kernel.numpy()

    (quick, kernel), (slow, same_kernel) = change(None), change("fast-biases")
    np.testing.assert_allclose(quick, 64 * slow, rtol=1e-3)
    np.testing.assert_allclose(kernel, same_kernel)


def test_learning_rate_is_a_triangle(model):
    callback = TriangularLearningRate()
    callback.set_model(model)
    callback.set_params({"epochs": 10, "steps": 10})
    rates = []
    for step in range(100):
        model.optimizer.iterations.assign(step)
        callback.on_train_batch_begin(step % 10)
        rates.append(float(model.optimizer.learning_rate) / 0.75)
    assert np.argmax(rates) == 23
    assert (rates[0], rates[23]) == pytest.approx((0.2, 1))
    assert rates[-1] == pytest.approx(0.07, abs=0.02)
    assert (np.diff(np.diff(rates[:23])) < 1e-6).all() and (np.diff(rates[23:]) < 0).all()


def test_lookahead_averages_every_fifth_step_and_at_the_end_of_an_epoch(model):
    callback = Lookahead()
    callback.set_model(model)
    callback.set_params({"epochs": 1, "steps": 7})
    kernel = model.layers[-3].kernel
    kernel.assign(tf.zeros_like(kernel))
    callback.on_train_begin()
    averaged = []
    for step in range(7):
        kernel.assign(tf.ones_like(kernel))
        model.optimizer.iterations.assign(step + 1)
        callback.on_train_batch_end(step)
        averaged.append(not np.allclose(kernel, 1))
    assert averaged == [False] * 4 + [True, False, True]
    fifth = 1 - 0.95**5 * (5 / 7) ** 3  # of the way from 0 to 1
    last = fifth + (1 - 0.95**5) * (1 - fifth)
    np.testing.assert_allclose(kernel, last, rtol=1e-5)


def varied(images, epoch, without=None):
    seed = tf.constant([1, epoch], tf.int64)
    order = tf.range(len(images))
    return flip_and_shift(images, order, tf.constant(epoch, tf.int64), seed, without).numpy()


def test_two_epochs_show_each_image_both_ways(photos):
    first, second = (varied(photos, epoch, without="shift") for epoch in (4, 5))
    for number, (photo, one, other) in enumerate(zip(photos, first, second, strict=True)):
        mirrored = photo[:, ::-1]
        expected = (photo, mirrored) if number % 2 else (mirrored, photo)
        np.testing.assert_allclose((one, other), expected, atol=1e-6)


def test_shifts_are_by_up_to_two_pixels_with_reflected_borders(photos):
    photo = photos[:1]
    padded = np.pad(photo[0], ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = [padded[y : y + 32, x : x + 32] for y in range(5) for x in range(5)]
    seen = set()
    for variant in varied(np.repeat(photo, 500, axis=0), epoch=1):
        for view in (variant, variant[:, ::-1]):
            seen |= {k for k, window in enumerate(windows) if np.allclose(view, window, atol=1e-5)}
    assert seen == set(range(25))


def test_six_views_are_averaged(model, photos):
    averaged = average_views(model).predict(photos, verbose=0)
    padded = np.pad(photos, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")

    def both_ways(images):
        predictions = model.predict(images, verbose=0), model.predict(images[:, :, ::-1], verbose=0)
        return sum(predictions) / 2

    shifted = both_ways(padded[:, :32, :32]) + both_ways(padded[:, 2:, 2:])
    np.testing.assert_allclose(averaged, both_ways(photos) / 2 + shifted / 4, atol=1e-5)


@pytest.mark.parametrize("idea", IDEAS)
def test_every_idea_can_be_left_out(idea):
    def recipe(without):
        parts = experiment(without=without)
        model = parts.define_model()
        return (
            model.optimizer.get_config(), model.loss.get_config(), model.count_params(),
            parts.prepare, parts.at_test_time, parts.augment.keywords, len(parts.callbacks),
            float(tf.linalg.trace(model.layers[4].kernel[1, 1])) == 24,  # begins as identity
        )  # fmt: skip

    assert recipe(idea) != recipe(None)


def test_speedrun_resumes_as_if_nothing_had_happened(tmp_path):
    arguments = ("--sample", "--limit", 100, "--batch-size", 16, "--epochs", 3)
    whole = run(SPEEDRUN, *arguments, "--out", "whole", cwd=tmp_path)
    assert whole.returncode == 0, whole.errors
    process = start(SPEEDRUN, *arguments, cwd=tmp_path)
    checkpoint = tmp_path / "runs" / "speedrun.checkpoint.keras"
    interrupt_after_first_epoch(process, signal.SIGKILL, checkpoint)
    resumed = run(SPEEDRUN, *arguments, "--resume", cwd=tmp_path)
    assert "Resuming after epoch" in resumed.output, resumed.errors
    assert numbers(tmp_path / "runs/speedrun.csv") == numbers(tmp_path / "whole/speedrun.csv")
    assert (
        result(tmp_path / "runs/speedrun.json")["test_loss"]
        == result(tmp_path / "whole/speedrun.json")["test_loss"]
    )
