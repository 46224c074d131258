"""Look at the data before anything else: the shapes, and the first nine training images."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from data.cifar10 import CLASS_NAMES
from data.download import find_cifar10
from harness import load_dataset
from machinery.errors import readable_errors
from machinery.figures import save_figure
from machinery.options import add_data, add_out, command, parse_options, script_parser

import matplotlib.pyplot as plt


def main():
    parser = script_parser()
    add_data(parser)
    add_out(parser)
    options = parse_options(parser)

    cifar10 = find_cifar10(options.data, options.sample)
    trainX, trainY, testX, testY = load_dataset(cifar10)
    print(f"Train: X={trainX.shape}, y={trainY.shape}, {trainX.dtype}")
    print(f"Test:  X={testX.shape}, y={testY.shape}, {testX.dtype}")

    figure, axes = plt.subplots(3, 3, figsize=(6, 6.5))
    figure.suptitle(
        f"The first nine training images of {'the sample of ' * options.sample}CIFAR-10"
    )
    for ax, image, label in zip(axes.flat, trainX, trainY.argmax(axis=1), strict=False):
        ax.imshow(image)
        ax.set_title(CLASS_NAMES[label])
        ax.axis("off")
    figure.tight_layout()
    path = Path(options.out) / "explore_dataset.png"
    save_figure(figure, path)
    print(f"Picture: {path}")
    print(f"Next:    {command('experiments/baseline1.py', options)}")


if __name__ == "__main__":
    with readable_errors():
        main()
