"""Look inside a model: what each layer puts out, and by Grad-CAM which places speak for a class.

Grad-CAM: Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391
"""

import math
from functools import partial
from itertools import groupby

from machinery.inspection import innermost_layers

import keras
import tensorflow as tf
from keras import layers

COLOURS = "tab:blue", "tab:orange"  # of the likeliest class, and of the second


def explain_answer(model, images):
    """Classify an image, and compute which places speak for the likeliest class and the second.

    Args:
        model: a Keras model. It is changed, and can be explained only once: to do it again and
            again, make a `tf.function` of this one.
        images: float32 tensor (1, size, size, 3) in [0, 1].

    Returns:
        `(outputs, blocks, probabilities, labels, heat_maps)`: what `look_inside` and `find_blocks`
        return, and tensors: float32 (classes,), the numbers of the two classes (2,), and float32
        (2, size, size) in [0, 1].

    Raises:
        ValueError: if the model does not end in a softmax, or has no convolutions.
    """
    with tf.GradientTape(persistent=True) as tape:
        outputs = look_inside(model, images)
    blocks = find_blocks(outputs)
    if not blocks:
        raise ValueError("the model has no convolutions, and so no feature maps")
    _, maps = blocks[-1]
    _, scores = outputs[-1]
    probabilities = tf.nn.softmax(tf.cast(scores[0], tf.float32))
    labels = tf.math.top_k(probabilities, 2).indices
    heat_maps = [grad_cam(tape, scores, labels[i], maps, images.shape[1]) for i in range(2)]
    return outputs, blocks, probabilities, labels, tf.stack(heat_maps)


def look_inside(model, images):
    """Compute what each layer of a model puts out.

    Args:
        model: a Keras model. It is changed, and can be looked into only once.
        images: float32 tensor (n, size, size, 3) in [0, 1].

    Returns:
        A list of `(layer, output)` in the order of computation. A layer that is itself a model is
        replaced by its layers. The last output is the scores (n, classes): the softmax is left out.

    Raises:
        ValueError: if the model does not end in a softmax.
    """
    *_, last = inner_layers = list(innermost_layers(model))
    if isinstance(last, layers.Softmax):
        last.call = lambda scores, **options: scores
    elif getattr(last, "activation", None) is keras.activations.softmax:
        last.activation = keras.activations.linear
    else:
        raise ValueError(f"the model's last layer, {last.name}, is no softmax")
    outputs = []

    def call_and_keep(layer, call, *arguments, **options):
        outputs.append((layer, call(*arguments, **options)))
        return outputs[-1][1]

    for layer in inner_layers:
        layer.call = partial(call_and_keep, layer, layer.call)
    model(images, training=False)  # random layers would flip and shift the photo otherwise
    return outputs


def find_blocks(outputs):
    """Return the last `(layer, output)` of each block: before height and width are halved.

    Only what has a convolution is a block; of one pixel, there is nothing to see.
    """
    maps = [entry for entry in outputs if len(entry[1].shape) == 4 and entry[1].shape[1] > 1]
    # Rounded: a convolution without padding takes the border away, which makes 31 of 32 pixels.
    grouped = groupby(maps, lambda entry: round(math.log2(maps[0][1].shape[1] / entry[1].shape[1])))
    blocks = [list(block) for _, block in grouped]
    return [b[-1] for b in blocks if any(isinstance(layer, layers.Conv2D) for layer, _ in b)]


def grad_cam(tape, scores, label, maps, size):
    """Return which places speak for a class: the sum of the feature maps, weighted.

    The weight of a map is the gradient of the class's score, on average over its pixels.

    Args:
        tape: a persistent `tf.GradientTape` that has seen how `scores` came from `maps`.
        scores: tensor (1, classes). Not probabilities: near 1, these have no gradient.
        label: the number of the class.
        maps: tensor (1, height, width, channels).
        size: height and width of the photo.

    Returns:
        float32 tensor (size, size) in [0, 1]. Zeros if no place speaks for the class.
    """
    gradients = tape.gradient(
        scores, maps, tf.one_hot([label], scores.shape[-1], dtype=scores.dtype)
    )
    weights = tf.reduce_mean(tf.cast(gradients, tf.float32), axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * tf.cast(maps, tf.float32), axis=-1, keepdims=True))
    heat = tf.image.resize(heat, (size, size))[0, ..., 0]
    return tf.math.divide_no_nan(heat, tf.reduce_max(heat))


def draw_seen(ax, photo):
    """Draw the few pixels that a model gets, uint8 (size, size, 3)."""
    ax.imshow(photo)
    ax.set(title=f"what it sees:\n{len(photo)}x{len(photo)} pixels", xticks=[], yticks=[])


def draw_heat_maps(axes, photo, heat_maps, names, layer_name):
    """Draw over a photo which places speak for the likeliest class, and which for the second.

    Args:
        axes: two of Matplotlib's.
        photo: uint8 (size, size, 3).
        heat_maps: float (2, size, size) in [0, 1].
        names: of the two classes, with what else is to be said of them.
        layer_name: of the layer whose maps they are.
    """
    for ax, heat, name, colour in zip(axes, heat_maps, names, COLOURS, strict=True):
        ax.imshow(photo.mean(axis=-1), cmap="gray")
        drawn = ax.imshow(heat, cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        ax.set(title=f"what speaks for\n{name}", xticks=[], yticks=[])
        ax.title.set_color(colour)
    label = f"Grad-CAM on {layer_name}\n(0: nothing, 1: most)"
    axes[0].figure.colorbar(drawn, ax=axes, label=label)
