"""Dropout that spends a byte of randomness on a value, not four."""

import types

import keras
import tensorflow as tf


def save_random_bits(model):
    """Have the dropout layers draw one random byte for each value.

    TensorFlow draws 32 bits, which takes longer than all the rest of dropout. The chance to drop a
    value is the layer's rate rounded to 1/256, and what is kept is scaled by what that makes it.
    The layers remain Keras's, and what is saved loads anywhere, without this function. Layers with
    a noise shape, or a rate that rounds to 0 or 1, are left as they are.

    Args:
        model: a `keras.Model`; its layers are changed in place.
    """
    for layer in model.layers:
        if (
            isinstance(layer, keras.layers.Dropout)
            and layer.noise_shape is None
            and 0 < bytes_dropped(layer) < 256
        ):
            layer.call = types.MethodType(drop, layer)


def bytes_dropped(layer):
    """Return for how many of the 256 values that a byte can have the layer drops a value."""
    return round(256 * layer.rate)


def drop(layer, inputs, training=False):
    """Do what `keras.layers.Dropout.call` does, for inputs of any shape and float dtype."""
    if not training:
        return inputs
    dropped = bytes_dropped(layer)
    seed = layer.seed_generator.next()
    words = tf.random.stateless_uniform([tf.size(inputs) // 4 + 1], seed, None, None, tf.uint32)
    randomness = tf.reshape(tf.bitcast(words, tf.uint8), [-1])[: tf.size(inputs)]
    kept = tf.reshape(randomness, tf.shape(inputs)) >= dropped
    return inputs * tf.cast(kept, inputs.dtype) * (256 / (256 - dropped))
