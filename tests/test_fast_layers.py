from machinery.fast_layers import fuse_batch_norm

import keras
import numpy as np
import pytest
from keras import layers


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


def trained(model, photos, sample):
    """Return a model after three steps with batches of 5: their variances tell n from n - 1."""
    labels = keras.utils.to_categorical(sample.y_train[:15], 10)
    model.fit(photos[:15], labels, batch_size=5, epochs=1, shuffle=False, verbose=0)
    return model


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}])
def test_fused_batch_norm_trains_as_that_of_keras(photos, sample, options):
    stock = trained(network(**options), photos, sample)
    quick = trained(fused(network(**options)), photos, sample)
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
    stock = trained(network(), photos, sample)
    expected = stock.predict(photos, verbose=0)
    quick = fused(keras.models.clone_model(stock))
    quick.set_weights(stock.get_weights())
    np.testing.assert_allclose(quick.predict(photos, verbose=0), expected, atol=1e-4)


def test_frozen_fused_batch_norm_keeps_its_statistics(photos):
    model = fused(network())
    model.get_layer("normalization").trainable = False
    model(photos, training=True)
    np.testing.assert_array_equal(model.get_layer("normalization").moving_mean, 0)


class Doubled(layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return 2 * super().call(inputs, training=training, mask=mask)


@pytest.mark.parametrize(
    "layer", [layers.BatchNormalization(axis=1), layers.BatchNormalization(axis=2), Doubled()]
)
def test_batch_norm_that_computes_something_else_is_left_to_keras(layer, photos):
    model = keras.Sequential([keras.Input((32, 32, 3)), layer])
    expected = model(photos, training=True)
    fuse_batch_norm(model)
    np.testing.assert_allclose(model(photos, training=True), expected, atol=1e-6)


def test_batch_norm_after_a_dense_layer_is_left_to_keras():
    layer = layers.BatchNormalization()
    fuse_batch_norm(keras.Sequential([keras.Input((8,)), layers.Dense(4), layer]))
    assert "call" not in vars(layer)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_model_with_fused_batch_norm_loads_as_a_stock_model(tmp_path, photos, sample, suffix):
    model = trained(fused(network()), photos, sample)
    model.save(tmp_path / f"model.{suffix}")
    loaded = keras.saving.load_model(tmp_path / f"model.{suffix}", compile=False)
    layer = loaded.get_layer("normalization")
    assert type(layer) is layers.BatchNormalization and "call" not in vars(layer)
    np.testing.assert_allclose(
        loaded.predict(photos, verbose=0), model.predict(photos, verbose=0), atol=1e-4
    )
