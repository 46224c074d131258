"""Loading Keras models without trusting their files."""

import contextlib
import math
import os
from pathlib import Path

from machinery.files import limited_memory, open_zip, require_member_sizes

import h5py
import keras
import tensorflow as tf

MOST_BYTES = 2_000_000_000  # that a `.keras` file may unpack to
WEIGHTS = "model.weights.h5"  # in a `.keras` file

MOST_VALUES = 500_000_000  # 2 GB; VGG-16 computes half of it for the largest images we take
MOST_CHARACTERS = 10_000_000  # of a text in HDF5: JSON takes ten times the memory and more


def load_model(path, **options):
    """Load a model as `keras.saving.load_model` does, unless its layers take too much memory.

    Keras makes all layers, and fills their weights at random, before it looks for the values: a
    file of a few bytes can ask for any memory. A file of n bytes has values for at most n weights.
    What is computed for an image can ask for any memory, too: it is counted before it is done.

    Args:
        path: ends in `.h5` or `.keras`, as which Keras reads it, whatever is in it.

    Raises:
        ValueError: if it asks for more. Keras raises nearly anything if it is damaged.
    """
    tf.config.list_logical_devices()  # has TensorFlow start its threads, which take memory, too
    with limited_memory(), at_most(os.path.getsize(path)):
        if Path(path).suffix == ".keras":
            require_small_archive(path)
        else:
            with h5py.File(path) as file:
                require_texts(file)
            require_arrays(path, os.path.getsize(path))
        model = keras.saving.load_model(path, **options)
        # A model within a model may learn only now how large its images are, and make weights.
        one_image = tf.TensorSpec((1, *model.input_shape[1:]))
        traced = tf.function(model, autograph=False).get_concrete_function(one_image)
    if values_in(traced.graph) > MOST_VALUES:
        raise ValueError("it computes too much for one image")
    return model


def values_in(graph):
    """Return how many numbers a TensorFlow graph computes, all together; of a loop, for one turn.

    Sizes that are known only when it is computed count as one.
    """
    definition = graph.as_graph_def(add_shapes=True)
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    shapes = [shape for node in nodes for shape in node.attr["_output_shapes"].list.shape]
    return sum(math.prod(max(1, axis.size) for axis in shape.dim) for shape in shapes)


def require_small_archive(path):
    """Raise ValueError if a `.keras` file unpacks to too much, or claims more than is in it."""
    with open(path, "rb") as file, open_zip(file) as archive:
        require_member_sizes(archive, MOST_BYTES)
        if WEIGHTS not in archive.namelist():  # Keras would take others, of NumPy's format
            raise ValueError(f"{WEIGHTS} is missing")
        with archive.open(WEIGHTS) as weights:
            require_arrays(weights, archive.getinfo(WEIGHTS).file_size)


def require_arrays(path, file_bytes):
    """Raise ValueError unless the arrays of an HDF5 file of this length are really in it.

    A chunk that is not there is read as zeros, one that is compressed can unpack to any size,
    whatever the array's is, and the values of an array can be in another file, or in a pipe.

    Args:
        path: of the file, or the open file.
    """
    sizes = []

    def look_at(name, item):
        if isinstance(item, h5py.Dataset):
            if item.external or item.is_virtual:
                raise ValueError(f"its array {name} is in another file")
            if item.id.get_create_plist().get_nfilters():
                raise ValueError(f"its array {name} is compressed, which Keras doesn't do")
            sizes.append(item.nbytes)

    with h5py.File(path) as file:
        file.visititems(look_at)
    if sum(sizes) > file_bytes:
        raise ValueError("it claims larger arrays than are in it")


def require_texts(file):
    """Raise ValueError unless what describes a model, in an open HDF5 file, is single short texts.

    Texts lie elsewhere in the file: an array of them may be the same long one, again and again.
    """
    for name in file.attrs:
        attribute = file.attrs.get_id(name)
        if attribute.shape or not h5py.check_string_dtype(attribute.dtype):
            raise ValueError(f"its {name} is no text")
        if len(str(file.attrs[name])) > MOST_CHARACTERS:
            raise ValueError(f"its {name} is longer than {MOST_CHARACTERS:,} characters")


@contextlib.contextmanager
def at_most(weights):
    """Let no layers be made in the block that have more weights than this, all together."""
    layer_class, most_weights = keras.layers.Layer, weights
    add_weight = layer_class.add_weight

    def add_weight_if_few(layer, *args, **options):
        nonlocal weights
        weights -= math.prod(args[0] if args else options.get("shape") or ())
        if weights < 0:
            raise ValueError(f"its layers ask for more than {most_weights:,} weights")
        return add_weight(layer, *args, **options)

    layer_class.add_weight = add_weight_if_few
    try:
        yield
    finally:
        layer_class.add_weight = add_weight
