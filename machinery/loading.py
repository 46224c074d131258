"""Loading Keras models without trusting their files."""

import contextlib
import math
import os

import keras


def load_model(path, **options):
    """Load a model as `keras.saving.load_model` does, unless its layers are too large for its file.

    Keras makes all layers, and fills their weights at random, before it looks for the values: a
    file of a few bytes can ask for any memory. A file of n bytes has values for at most n weights.

    Raises:
        ValueError: if it asks for more. Keras raises nearly anything if it is damaged.
    """
    with at_most_weights(os.path.getsize(path)):
        return keras.saving.load_model(path, **options)


@contextlib.contextmanager
def at_most_weights(count):
    """Let no layers be made in the block that have more weights than this, all together."""
    add_weight, left = keras.layers.Layer.add_weight, count

    def add_weight_if_few(layer, *args, **options):
        nonlocal left
        left -= math.prod(args[0] if args else options.get("shape") or ())
        if left < 0:
            raise ValueError(f"its layers ask for more weights than its {count:,} bytes hold")
        return add_weight(layer, *args, **options)

    keras.layers.Layer.add_weight = add_weight_if_few
    try:
        yield
    finally:
        keras.layers.Layer.add_weight = add_weight
