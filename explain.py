"""Look inside a model while it looks at a photo, and draw what there is to see as one picture.

The few pixels that it gets, and its answer. By Grad-CAM, which places speak for the likeliest
class, and which for the second. The filters of the first layer, and of each block the feature maps
that respond most strongly.

Grad-CAM: Selvaraju et al. 2017, https://arxiv.org/abs/1610.02391
"""

import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))  # this copy of the project

from data.image import DEER, load_image
from harness import prep_pixels
from machinery.errors import readable_errors
from machinery.figures import picture_of, save_figure
from machinery.files import blame
from machinery.final_model import load_final_model, require_deer, require_probabilities
from machinery.grad_cam import COLOURS, draw_heat_maps, draw_seen, explain_answer
from machinery.options import add_model, add_out, command, parse_options, path_of, script_parser

import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf
from keras import layers

MOST_BARS = 10
MOST_FILTERS = 64


def main():
    parser = script_parser("%(prog)s [options] [IMAGE]")
    parser.add_argument("image", type=path_of, nargs="?", default=DEER, metavar="IMAGE",
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
    with blame(options.model):
        outputs, blocks, *answer = explain_answer(model, images)
    probabilities, labels, heat_maps = (tensor.numpy() for tensor in answer)
    require_probabilities(probabilities, options.model)

    heights = [2.9, *[1.6] * (1 + len(blocks))]
    figure = plt.figure(figsize=(10, 0.4 + sum(heights)), layout="constrained")
    model_name = f"{Path(options.model).name} ({training['settings']['experiment']})"
    names = [f"{class_names[i]}, {100 * probabilities[i]:.1f} %" for i in labels]
    figure.suptitle(f"{model_name} on {Path(options.image).name}: {names[0]}", wrap=True)
    top, filters, *rows = figure.subfigures(len(heights), height_ratios=heights)
    seen, bars, *cams = top.subplots(1, 4)
    draw_seen(seen, photo)
    draw_bars(bars, class_names, probabilities, labels)
    draw_heat_maps(cams, photo, heat_maps, names, blocks[-1][0].name)
    draw_filters(filters, [layer for layer, _ in outputs])
    for number, (row, block) in enumerate(zip(rows, blocks, strict=True), 1):
        draw_maps(row, number, *block)
    path = picture_of(options.image, "explain", options.out)
    save_figure(figure, path)
    print(f"Picture: {path}")
    print(f"Next:    {command('experiments/speedrun.py')}")


def draw_bars(ax, class_names, probabilities, labels):
    colours = dict(zip(labels, COLOURS, strict=True))
    shown = sorted(probabilities.argsort()[-MOST_BARS:])
    names, colors = [class_names[i] for i in shown], [colours.get(i, "gray") for i in shown]
    ax.barh(names, 100 * probabilities[shown], color=colors)
    ax.invert_yaxis()
    ax.set(title="what it answers", xlim=(0, 100), xlabel="probability (%)", box_aspect=1)


def draw_filters(figure, all_layers):
    first = next(layer for layer in all_layers if isinstance(layer, layers.Conv2D))
    filters = np.moveaxis(first.kernel.numpy(), -1, 0)[:MOST_FILTERS]
    n, height, width, channels = filters.shape
    of_all = "" if n == first.filters else f" of {first.filters}"
    title = f"{n}{of_all} filters of the first layer, {height}x{width} ({first.name}), "
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
