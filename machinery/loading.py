"""Loading Keras models without trusting their files."""

import contextlib
import math
import os

from machinery.files import open_zip, require_member_sizes

import h5py
import keras
import tensorflow as tf

MOST_BYTES = 2_000_000_000  # that a `.keras` file may unpack to
MOST_COMPRESSION = 10  # of the arrays in HDF5; weights are nearly random
WEIGHTS = "model.weights.h5"  # in a `.keras` file

MOST_VALUES = 500_000_000  # 2 GB; VGG-16 computes a sixth of it for the largest images we take


def load_model(path, **options):
    """Load a model as `keras.saving.load_model` does, unless its layers take too much memory.

    Keras makes all layers, and fills their weights at random, before it looks for the values: a
    file of a few bytes can ask for any memory. A file of n bytes has values for at most n weights.
    Layers without weights can ask for any memory, too, when they are used.

    Raises:
        ValueError: if it asks for more. Keras raises nearly anything if it is damaged.
    """
    require_size(path)
    with at_most(os.path.getsize(path), MOST_VALUES):
        model = keras.saving.load_model(path, **options)
        # A model within a model may learn only now how large its images are.
        one_image = tf.TensorSpec((1, *model.input_shape[1:]))
        tf.function(model, autograph=False).get_concrete_function(one_image)
    return model


def require_size(path):
    """Raise ValueError if a model's file unpacks to too much, or claims more than is in it."""
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            require_arrays(file, MOST_COMPRESSION * os.path.getsize(path))
        return
    with open(path, "rb") as file, open_zip(file) as archive:
        require_member_sizes(archive, MOST_BYTES)
        if WEIGHTS in archive.namelist():
            with archive.open(WEIGHTS) as weights, h5py.File(weights) as file:
                require_arrays(file, MOST_COMPRESSION * archive.getinfo(WEIGHTS).file_size)


def require_arrays(file, most_bytes):
    """Raise ValueError if the arrays of an open HDF5 file are larger, all together.

    A chunk that is not there is read as zeros: a small file can claim any size.
    """
    sizes = []
    file.visititems(lambda _, item: sizes.append(getattr(item, "nbytes", 0)))
    if sum(sizes) > most_bytes:
        raise ValueError("it claims larger arrays than are in it")


@contextlib.contextmanager
def at_most(weights, values):
    """Let no layers be made and called in the block that are larger than this, all together.

    Args:
        weights: how many numbers they may have.
        values: how many they may compute for an image.
    """
    layer_class, most_weights = keras.layers.Layer, weights
    add_weight, call = layer_class.add_weight, layer_class.__call__

    def add_weight_if_few(layer, *args, **options):
        nonlocal weights
        weights -= math.prod(args[0] if args else options.get("shape") or ())
        if weights < 0:
            raise ValueError(f"its layers ask for more than {most_weights:,} weights")
        return add_weight(layer, *args, **options)

    def call_if_small(layer, *args, **options):
        nonlocal values
        outputs = call(layer, *args, **options)
        for output in keras.tree.flatten(outputs):
            values -= math.prod(size or 1 for size in output.shape[1:])
        if values < 0:
            raise ValueError("its layers compute too much for one image")
        return outputs

    layer_class.add_weight, layer_class.__call__ = add_weight_if_few, call_if_small
    try:
        yield
    finally:
        layer_class.add_weight, layer_class.__call__ = add_weight, call
