from harness import prep_pixels, training_batches

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from models.augmentation import flip_and_shift
from models.augmentation import sample as read_at
from models.batch_norm import fuse_batch_norm
from models.dropout import save_random_bits


@pytest.fixture(scope="module")
def photos(sample):
    return prep_pixels(sample.x_train[:200], sample.x_test)[0]


# Augmentation


def augmented(images, seed=0):
    return flip_and_shift(images, None, None, tf.constant([seed, 0], tf.int64)).numpy()


def test_augmentation_moves_pixels(photos):
    moved = np.abs(augmented(photos) - photos).max(axis=(1, 2, 3))
    assert (moved > 0.01).mean() > 0.95


def test_augmentation_mirrors_half_of_the_images_and_shifts_up_to_a_tenth():
    # A dark image whose left half is bright: its edge shows where the image has gone.
    image = np.zeros((1, 32, 32, 3), "float32")
    image[:, :, :16] = 1
    for turned in (image, image.transpose(0, 2, 1, 3)):  # along the width, along the height
        seen = augmented(np.repeat(turned, 4000, axis=0))
        lines = seen[:, 5, :, 0] if turned is image else seen[:, :, 5, 0]
        mirrored = lines[:, 0] < 0.5
        assert 0.47 < mirrored.mean() < 0.53 if turned is image else not mirrored.any()
        shifts = np.sort(lines[~mirrored].sum(axis=1) - 16)
        uniform = np.linspace(-3.2, 3.2, len(shifts))
        assert np.abs(shifts - uniform).max() < 0.25  # Kolmogorov-Smirnov, as it were


@pytest.mark.parametrize("down", [-0.1, -0.04, 0.0, 0.06, 0.1])
def test_shifted_images_are_those_of_the_keras_layer(photos, down):
    right = down / 2 - 0.02
    layer = layers.RandomTranslation((down, down), (right, right), fill_mode="nearest")
    pixels = np.arange(32, dtype="float32")
    rows, columns = (np.clip(pixels - 32 * shift, 0, 31) for shift in (down, right))
    seen = read_at(photos, np.tile(rows, (200, 1)), np.tile(columns, (200, 1)))
    np.testing.assert_allclose(seen, layer(photos, training=True), atol=1e-4)


def test_augmentation_has_the_mean_and_spread_of_the_keras_layers(photos):
    stock = keras.Sequential(
        [
            layers.RandomFlip("horizontal", seed=1),
            layers.RandomTranslation(0.1, 0.1, fill_mode="nearest", seed=2),
        ]
    )
    many = np.repeat(photos[:1], 4000, axis=0)
    ours, theirs = augmented(many), stock(many, training=True).numpy()
    np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), atol=0.02)


def test_every_epoch_shows_another_variant_and_a_resumed_one_the_same(sample):
    def epochs(count, first_epoch):
        images, numbers = sample.x_train[:20], np.arange(20)
        batches = training_batches(images, numbers, 8, 0, flip_and_shift, first_epoch)
        seen = [list(batches.skip(3 * k).take(3).as_numpy_iterator()) for k in range(count)]
        in_order = []
        for epoch in seen:
            pixels, order = (np.concatenate(parts) for parts in zip(*epoch, strict=True))
            in_order.append(pixels[np.argsort(order)])
        return in_order

    first, second = epochs(2, first_epoch=0)
    assert (np.abs(first - second).max(axis=(1, 2, 3)) > 0.01).all()
    np.testing.assert_array_equal(epochs(1, first_epoch=1)[0], second)


# Batch normalization


def network(**options):
    """A network with known weights, that only differs in how it normalizes."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(8, 3),
            layers.BatchNormalization(momentum=0.8, name="normalization", **options),
            layers.Activation("relu"),
            layers.GlobalAveragePooling2D(),
            layers.Dense(10),
        ]
    )
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    return model


def fused(model):
    fuse_batch_norm(model)
    assert "call" in vars(model.get_layer("normalization"))
    return model


def trained(model, sample):
    """Return a model after three steps with batches of 5: their variances tell n from n - 1."""
    images, _ = prep_pixels(sample.x_train[:15], sample.x_test)
    labels = keras.utils.to_categorical(sample.y_train[:15], 10)
    model.fit(images, labels, batch_size=5, epochs=1, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
def test_fused_batch_norm_trains_as_that_of_keras(sample, options):
    stock = trained(network(**options), sample)
    quick = trained(fused(network(**options)), sample)
    for ours, theirs in zip(quick.weights, stock.weights, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4, err_msg=ours.path)
    moving = stock.get_layer("normalization").moving_variance.numpy()
    assert np.abs(moving - 1).max() > 0.01  # training has moved it


def test_variance_of_a_small_batch_is_that_of_keras():
    values = np.random.default_rng(0).normal(size=(2, 2, 1, 3)).astype("float32")
    moving = []
    for fuse in (False, True):
        layer = layers.BatchNormalization(momentum=0.0)
        model = keras.Sequential([keras.Input((2, 1, 3)), layer])
        if fuse:
            fuse_batch_norm(model)
        model(values, training=True)
        moving.append(layer.moving_variance.numpy())
    np.testing.assert_allclose(moving[1], moving[0], atol=1e-6)
    np.testing.assert_allclose(moving[1], values.var(axis=(0, 1, 2)), atol=1e-6)


def test_fused_batch_norm_predicts_as_that_of_keras(photos, sample):
    stock = trained(network(), sample)
    expected = stock.predict(photos, verbose=0)
    quick = fused(keras.models.clone_model(stock))
    quick.set_weights(stock.get_weights())
    np.testing.assert_allclose(quick.predict(photos, verbose=0), expected, atol=1e-4)


def test_frozen_fused_batch_norm_keeps_its_statistics(photos):
    model = fused(network())
    model.get_layer("normalization").trainable = False
    model(photos, training=True)
    np.testing.assert_array_equal(model.get_layer("normalization").moving_mean, 0)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_model_with_fused_batch_norm_loads_as_a_stock_model(tmp_path, photos, sample, suffix):
    model = trained(fused(network()), sample)
    model.save(tmp_path / f"model.{suffix}")
    loaded = keras.saving.load_model(tmp_path / f"model.{suffix}", compile=False)
    layer = loaded.get_layer("normalization")
    assert type(layer) is layers.BatchNormalization and "call" not in vars(layer)
    np.testing.assert_allclose(
        loaded.predict(photos, verbose=0), model.predict(photos, verbose=0), atol=1e-4
    )


# Dropout


@pytest.fixture
def dropout():
    inputs = keras.Input((50, 41))
    model = keras.Model(inputs, layers.Dropout(0.3, seed=0)(inputs))
    save_random_bits(model)
    return model


def test_dropout_drops_its_rate_of_the_values_and_keeps_their_sum(dropout):
    seen = dropout(np.ones((200, 50, 41), "float32"), training=True).numpy()
    assert abs((seen == 0).mean() - 0.3) < 0.003
    assert abs(seen.mean() - 1) < 0.005
    assert len(np.unique(seen)) == 2
    # No place in an image, and no image, is dropped more often than another.
    for axis, values in ((0, 200), ((1, 2), 50 * 41)):
        spread = (seen == 0).mean(axis=axis).std()
        assert spread == pytest.approx((0.3 * 0.7 / values) ** 0.5, rel=0.1)


def test_dropout_drops_anew_in_each_step(dropout):
    images = np.ones((2, 50, 41), "float32")
    first, second = (dropout(images, training=True).numpy() == 0 for _ in range(2))
    assert abs((first & second).mean() - 0.3**2) < 0.03
    assert abs((first[0] & first[1]).mean() - 0.3**2) < 0.03


def test_dropout_passes_the_gradient_of_what_it_keeps(dropout):
    images = tf.ones((2, 50, 41))
    with tf.GradientTape() as tape:
        tape.watch(images)
        seen = dropout(images, training=True)
    np.testing.assert_allclose(tape.gradient(seen, images), seen)


def test_dropout_does_nothing_outside_of_training(dropout):
    images = np.random.default_rng(0).random((2, 50, 41), "float32")
    np.testing.assert_array_equal(dropout(images), images)


@pytest.mark.parametrize(
    "options", [{"rate": 0.0}, {"rate": 0.999}, {"rate": 0.5, "noise_shape": (None, 1, 41)}]
)
def test_dropout_that_bytes_cannot_do_is_left_to_keras(options):
    layer = layers.Dropout(seed=0, **options)
    model = keras.Sequential([keras.Input((50, 41)), layer])
    save_random_bits(model)
    assert "call" not in vars(layer)
    assert np.isfinite(model(np.ones((2, 50, 41), "float32"), training=True)).all()
