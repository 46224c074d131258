"""Keras's layers, computed faster."""

import types

import keras
import tensorflow as tf


def fuse_batch_norm(model):
    """Compute the batch normalizations that follow convolutions by TensorFlow's fused operation.

    Keras 3 computes them in some twenty operations, each of which reads and writes all the values.
    The result is the same, and so is the model: its layers remain Keras's, and what is saved loads
    anywhere, without this function.

    Args:
        model: a `keras.Model`; its layers are changed in place.
    """
    for layer in model.layers:
        # Not of classes derived from it, which may compute something else.
        if type(layer) is keras.layers.BatchNormalization and of_channels(layer):
            layer.call = types.MethodType(normalize, layer)


def of_channels(layer):
    """Tell whether a batch normalization takes images, and normalizes each of their channels."""
    return layer.input_spec.ndim == 4 and layer.axis in (-1, 3)


def normalize(layer, images, training=False, mask=None):
    """Do what `keras.layers.BatchNormalization.call` does, for (n, height, width, channels)."""
    scale = layer.gamma.value if layer.scale else tf.ones_like(layer.moving_mean.value)
    offset = layer.beta.value if layer.center else tf.zeros_like(layer.moving_mean.value)
    if not (training and layer.trainable):
        return tf.compat.v1.nn.fused_batch_norm(
            images, scale, offset, layer.moving_mean.value, layer.moving_variance.value,
            layer.epsilon, is_training=False,
        )[0]  # fmt: skip
    outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
        images, scale, offset, epsilon=layer.epsilon
    )
    # The operation divides by n - 1 for the variance, Keras by n.
    n = tf.cast(tf.size(images[..., 0]), tf.float32)
    for moving, new in (
        (layer.moving_mean, mean),
        (layer.moving_variance, variance * (n - 1) / n),
    ):
        moving.assign(layer.momentum * moving.value + (1 - layer.momentum) * new)
    return outputs
