"""Look at the data before anything else: the shapes, and the first nine training images."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from data.download import find_dataset
from harness import load_dataset
from machinery.errors import readable_errors
from machinery.figures import save_figure
from machinery.options import (
    add_data,
    add_image_size,
    add_out,
    command,
    parse_options,
    script_parser,
)
from machinery.records import remark_on_data

import matplotlib.pyplot as plt


def main():
    parser = script_parser()
    add_data(parser)
    add_image_size(parser)
    add_out(parser)
    options = parse_options(parser)

    dataset = find_dataset(options.data, options.sample, options.image_size)
    trainX, trainY, testX, testY = load_dataset(dataset)
    print(f"Train: X={trainX.shape}, y={trainY.shape}, {trainX.dtype}")
    print(f"Test:  X={testX.shape}, y={testY.shape}, {testX.dtype}")

    figure, axes = plt.subplots(3, 3, figsize=(6, 6.5), layout="constrained")
    images = remark_on_data(dataset, options).removeprefix("on ") or "CIFAR-10"
    figure.suptitle(f"Nine training images: {images}", wrap=True)
    for ax, image, label in zip(axes.flat, trainX, trainY.argmax(axis=1), strict=False):
        ax.imshow(image)
        ax.set_title(dataset.class_names[label])
        ax.axis("off")
    path = Path(options.out) / "explore_dataset.png"
    save_figure(figure, path)
    print(f"Picture: {path}")
    print(f"Next:    {command('experiments/baseline1.py', options)}")


if __name__ == "__main__":
    with readable_errors():
        main()
