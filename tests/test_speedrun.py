import re
from functools import partial

from compare import read_runs
from conftest import ROOT, call, ctrl_c_after, numbers, result
from experiments.speedrun import (
    IDEAS,
    TARGETS,
    Lookahead,
    TriangularLearningRate,
    augment,
    define_model,
    experiment,
    name_of,
    start_as_identity,
    whiten,
)
from experiments.speedrun import test_time_augmentation as average_views

import keras
import numpy as np
import pytest
import tensorflow as tf

SPEEDRUN = "experiments/speedrun.py"
WIDTHS = (24, 24, 32)


@pytest.fixture
def model():
    keras.utils.set_random_seed(0)
    return define_model(widths=WIDTHS)


def test_whitened_outputs_are_uncorrelated_and_of_equal_variance(model, sample):
    whiten(model, sample.x_train)
    layer = model.get_layer("whitening")
    images = sample.x_train.astype(np.float32) / 255
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
        model = define_model(widths=WIDTHS)
        whiten(model, sample.x_train)
        assert model.layers[4].compute_dtype == ("bfloat16" if "16" in policy else "float32")
        whitened = keras.Model(model.input, model.get_layer("whitening").output)
        outputs.append(whitened.predict(photos, verbose=0).astype("float32"))
    np.testing.assert_allclose(outputs[1], outputs[0], atol=1e-3)


def test_whitening_does_not_learn(model, sample, photos):
    whiten(model, sample.x_train)
    before = model.get_layer("whitening").kernel.numpy()
    labels = keras.utils.to_categorical(sample.y_train[:10], 10)
    model.fit(photos[:10], labels, verbose=0)
    np.testing.assert_array_equal(model.get_layer("whitening").kernel, before)


def test_convolutions_start_by_passing_their_input_on():
    inputs = keras.Input((8, 8, 5))
    network = keras.Model(inputs, keras.layers.Conv2D(7, 3, padding="same")(inputs))
    start_as_identity(network)
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 5)).astype("float32")
    outputs = network(images).numpy()
    np.testing.assert_allclose(outputs[..., :5], images, atol=1e-6)
    assert np.abs(outputs[..., 5:]).min() > 0


def test_biases_learn_faster(sample, photos):
    def change(without):
        keras.utils.set_random_seed(0)
        model = define_model(widths=WIDTHS, without=without)
        model.train_on_batch(photos[:10], keras.utils.to_categorical(sample.y_train[:10], 10))
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


def varied(images, epoch, seed=1, without=None):
    random = np.random.default_rng(seed)
    return augment(images, None, np.arange(len(images)), epoch, random, without)[0]


def test_two_epochs_show_each_image_both_ways(photos):
    first, second = (varied(photos, epoch, without="shift") for epoch in (4, 5))
    for index, (photo, one, other) in enumerate(zip(photos, first, second, strict=True)):
        flipped = photo[:, ::-1]
        expected = (photo, flipped) if index % 2 else (flipped, photo)
        np.testing.assert_allclose((one, other), expected, atol=1e-6)


def test_an_image_is_flipped_by_its_index_wherever_in_the_batch_it_is(photos):
    indices = np.array([7, 4, 9])
    random = np.random.default_rng(0)
    seen, _ = augment(photos[:3], None, indices, 0, random, without="shift")
    np.testing.assert_allclose(seen[1], photos[1][:, ::-1], atol=1e-6)
    np.testing.assert_allclose(seen[[0, 2]], photos[[0, 2]], atol=1e-6)


def test_shifts_are_by_up_to_two_pixels_with_reflected_borders(photos):
    photo = photos[:1]
    padded = np.pad(photo[0], ((2, 2), (2, 2), (0, 0)), mode="reflect")
    windows = np.array([padded[y : y + 32, x : x + 32] for y in range(5) for x in range(5)])
    seen = set()
    for variant in varied(np.repeat(photo, 300, axis=0), epoch=1):
        for view in (variant, variant[:, ::-1]):
            near = np.abs(windows - view).max(axis=(1, 2, 3)) < 1e-4
            seen |= set(np.flatnonzero(near).tolist())
    assert seen == set(range(25))


def test_six_views_are_averaged(model, photos):
    averaged = average_views(model).predict(photos, verbose=0)
    padded = np.pad(photos, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")

    def both_ways(images):
        return (model(images).numpy() + model(images[:, :, ::-1]).numpy()) / 2

    shifted = both_ways(padded[:, :32, :32]) + both_ways(padded[:, 2:, 2:])
    np.testing.assert_allclose(averaged, both_ways(photos) / 2 + shifted / 4, atol=1e-5)


@pytest.mark.parametrize("idea", IDEAS)
def test_every_idea_can_be_left_out(idea):
    def recipe(without):
        parts = experiment(without=without)
        model = parts.define_model()
        return (
            model.optimizer.get_config(), model.loss.get_config(), model.count_params(),
            parts.initialize, parts.test_time_augmentation, parts.augment.keywords,
            [type(callback) for callback in parts.callbacks],
            float(tf.linalg.trace(model.layers[4].kernel[1, 1])) == 24,  # begins as identity
        )  # fmt: skip

    assert recipe(idea) != recipe(None)


def test_ideas_of_the_augmentation_change_what_it_shows(photos):
    seen = {idea: varied(photos, 0, without=idea) for idea in (None, "shift", "alternating")}
    for idea in ("shift", "alternating"):
        assert np.abs(seen[idea] - seen[None]).max() > 0.01


def test_targets_are_experiments():
    for target in TARGETS:
        parts = experiment(target)
        assert parts.published_accuracy == float(target)
        assert parts.batch_size == 512
        assert isinstance(parts.define_model, partial)


def test_speedrun_resumes_as_if_nothing_had_happened(tmp_path):
    arguments = ("--sample", "--limit", 20, "--epochs", 2, "--batch-size", 10)
    whole = call(SPEEDRUN, *arguments, "--out", "whole", cwd=tmp_path)
    assert whole.code == 0, whole.errors
    with ctrl_c_after(1):
        call(SPEEDRUN, *arguments, cwd=tmp_path)
    resumed = call(SPEEDRUN, *arguments, "--resume", cwd=tmp_path)
    assert "Resuming after epoch 1 of 2" in resumed.output, resumed.errors
    assert numbers(tmp_path / "runs/speedrun.csv") == numbers(tmp_path / "whole/speedrun.csv")
    loss = result(tmp_path / "runs/speedrun.json")["test_loss"]
    assert loss == result(tmp_path / "whole/speedrun.json")["test_loss"]


def test_runs_without_an_idea_or_to_another_target_have_names_of_their_own(tmp_path, monkeypatch):
    named = []
    monkeypatch.setattr("harness.run_experiment", lambda name, *others: named.append(name))
    for arguments in ((), ("--target", "94"), ("--target", "94", "--without", "tta")):
        assert call(SPEEDRUN, "--sample", *arguments, cwd=tmp_path).code == 0
    assert named == ["speedrun", "speedrun_94", "speedrun_94_without_tta"]


@pytest.mark.parametrize("idea", [None, *IDEAS])
def test_page_says_what_an_idea_is_worth(idea):
    rows = {row.name: row for row in read_runs([ROOT / "results/ablation"])}
    without = rows[name_of(without=idea)]
    accuracy, _, half_width = without.measured()
    difference = without.against(rows[name_of()]) if idea else ""
    first = f"`{idea}`: .*" if idea else "all of them"
    page = (ROOT / "docs/speedrun.md").read_text()
    (told,) = re.findall(rf"^\| {first} \|.*\| ([^|]*) \| ?([^|]*) \|$", page, re.M)
    assert told == (f"{accuracy:.2f} ± {half_width:.2f} %", difference)
