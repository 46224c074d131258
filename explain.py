"""Look inside a model while it looks at a photo, and draw what there is to see as one picture.

The few pixels that it gets, and its answer. By Grad-CAM, which places speak for the likeliest
class, and which for the second. The filters of the first layer, and of each block the feature maps
that respond most strongly.

Grad-CAM: Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391
"""

import math
import os
from functools import partial
from itertools import groupby
from pathlib import Path

from data.image import DEER, load_image
from harness import prep_pixels
from machinery.errors import UsageError, readable_errors
from machinery.figures import picture_of, save_figure
from machinery.final_model import load_final_model, require_deer
from machinery.options import add_model, add_out, command, parse_options, script_parser

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import layers

MOST_BARS = 10


def main():
    parser = script_parser("%(prog)s [options] [IMAGE]")
    parser.add_argument("image", type=os.path.expanduser, nargs="?", default=DEER, metavar="IMAGE",
        help=f"a photo ({DEER.name}, a deer of CIFAR-10's test set)")  # fmt: skip
    add_model(parser)
    add_out(parser)
    options = parse_options(parser)

    model, training = load_final_model(options.model)
    class_names = training["dataset"]["class_names"]
    if options.image == DEER:
        require_deer(class_names, options.model)
    photo = load_image(options.image, model.input_shape[1])
    if training["remark"]:
        print(f"Trained {training['remark']}: expect mistakes.")

    images = tf.constant(*prep_pixels(photo[None]))
    with tf.GradientTape(persistent=True) as tape:
        outputs = look_inside(model, images)
    blocks = find_blocks(outputs)
    if not blocks:
        raise UsageError(f"{options.model} has no convolutions, and so no feature maps")
    _, scores = outputs[-1]
    probabilities = tf.nn.softmax(tf.cast(scores[0], tf.float32)).numpy()
    first, second = probabilities.argsort()[:-3:-1]
    cam_layer, maps = blocks[-1]
    heat_maps = {
        label: grad_cam(tape, scores, label, maps, len(photo)) for label in (first, second)
    }

    heights = [2.9, *[1.6] * (1 + len(blocks))]
    figure = plt.figure(figsize=(10, 0.4 + sum(heights)), layout="constrained")
    model_name = f"{Path(options.model).name} ({training['settings']['experiment']})"
    answer = f"{class_names[first]}, {100 * probabilities[first]:.1f} %"
    figure.suptitle(f"{model_name} on {Path(options.image).name}: {answer}", wrap=True)
    top, filters, *rows = figure.subfigures(len(heights), height_ratios=heights)
    draw_answer(top, photo, class_names, probabilities, heat_maps, cam_layer)
    draw_filters(filters, [layer for layer, _ in outputs])
    for number, (row, block) in enumerate(zip(rows, blocks, strict=True), 1):
        draw_maps(row, number, *block)
    path = picture_of(options.image, "explain", options.out)
    save_figure(figure, path)
    print(f"Picture: {path}")
    print(f"Next:    {command('experiments/speedrun.py')}")


def look_inside(model, images):
    """Compute what each layer of a model puts out.

    Args:
        model: a Keras model. It is changed, and can be looked into only once.
        images: float32 tensor (n, size, size, 3) in [0, 1].

    Returns:
        A list of `(layer, output)` in the order of computation. A layer that is itself a model is
        replaced by its layers. The last output is the scores (n, classes): the softmax is left out.

    Raises:
        UsageError: if the model does not end in a softmax.
    """
    *_, last = inner_layers = list(innermost_layers(model))
    if isinstance(last, layers.Softmax):
        last.call = lambda scores, **options: scores
    elif getattr(last, "activation", None) is keras.activations.softmax:
        last.activation = keras.activations.linear
    else:
        raise UsageError(f"the model's last layer, {last.name}, is no softmax")
    outputs = []

    def call_and_keep(layer, call, *arguments, **options):
        outputs.append((layer, call(*arguments, **options)))
        return outputs[-1][1]

    for layer in inner_layers:
        layer.call = partial(call_and_keep, layer, layer.call)
    model(images, training=False)  # random layers would flip and shift the photo otherwise
    return outputs


def innermost_layers(model):
    for layer in model.layers:
        yield from innermost_layers(layer) if isinstance(layer, keras.Model) else [layer]


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
        float32 (size, size) in [0, 1]. Zeros if no place speaks for the class.
    """
    gradients = tape.gradient(
        scores, maps, tf.one_hot([label], scores.shape[-1], dtype=scores.dtype)
    )
    weights = tf.reduce_mean(tf.cast(gradients, tf.float32), axis=(1, 2), keepdims=True)
    heat = tf.nn.relu(tf.reduce_sum(weights * tf.cast(maps, tf.float32), axis=-1, keepdims=True))
    heat = tf.image.resize(heat, (size, size))[0, ..., 0].numpy()
    return heat / (heat.max() or 1)


def draw_answer(figure, photo, class_names, probabilities, heat_maps, layer):
    seen, bars, *cams = figure.subplots(1, 4)
    seen.imshow(photo)
    seen.set(title=f"what it sees:\n{len(photo)}x{len(photo)} pixels", xticks=[], yticks=[])
    colours = dict(zip(heat_maps, ("tab:blue", "tab:orange"), strict=True))
    shown = sorted(probabilities.argsort()[-MOST_BARS:])
    names, colors = [class_names[i] for i in shown], [colours.get(i, "gray") for i in shown]
    bars.barh(names, 100 * probabilities[shown], color=colors)
    bars.invert_yaxis()
    bars.set(title="what it answers", xlim=(0, 100), xlabel="probability (%)", box_aspect=1)
    for ax, (label, heat) in zip(cams, heat_maps.items(), strict=True):
        ax.imshow(photo.mean(axis=-1), cmap="gray")
        drawn = ax.imshow(heat, cmap="inferno", alpha=0.6, vmin=0, vmax=1)
        ax.set(title=f"what speaks for\n{class_names[label]}, {100 * probabilities[label]:.1f} %")
        ax.set(xticks=[], yticks=[])
        ax.title.set_color(colours[label])
    figure.colorbar(drawn, ax=cams, label=f"Grad-CAM on {layer.name}\n(0: nothing, 1: most)")


def draw_filters(figure, all_layers):
    first = next(layer for layer in all_layers if isinstance(layer, layers.Conv2D))
    filters = np.moveaxis(first.kernel.numpy(), -1, 0)
    n, height, width, channels = filters.shape
    title = f"{n} filters of the first layer, {height}x{width} ({first.name}), "
    if channels != 3:
        filters = filters.mean(axis=-1, keepdims=True).repeat(3, axis=-1)
        title += "averaged over its input channels, "
    largest = np.abs(filters).max(axis=(1, 2, 3), keepdims=True).clip(min=1e-9)
    title += "each scaled to its largest weight; gray: 0"
    draw_tiles(figure, title, 0.5 + filters / largest / 2, math.ceil(n / 2))


def draw_maps(figure, number, layer, maps):
    maps = np.moveaxis(tf.cast(maps[0], tf.float32), -1, 0)
    strongest = maps[maps.max(axis=(1, 2)).argsort()[:-9:-1]]
    n, height, width = maps.shape
    title = (
        f"block {number}: {height}x{width}, {len(strongest)} of {n} feature maps ({layer.name}), "
        "each from its lowest value (dark) to its highest"
    )
    draw_tiles(figure, title, strongest, 8)


def draw_tiles(figure, title, tiles, columns):
    figure.suptitle(title, x=0.005, ha="left", fontsize="medium")
    axes = figure.subplots(math.ceil(len(tiles) / columns), columns, squeeze=False)
    for ax in axes.flat:
        ax.axis("off")
    for ax, tile in zip(axes.flat, tiles, strict=False):
        ax.imshow(tile)


if __name__ == "__main__":
    with readable_errors():
        main()
