"""Look at the data before anything else: the shapes, and the first nine training images."""

from pathlib import Path

import matplotlib.pyplot as plt

from dataset import CLASS_NAMES, find_cifar10, replace_when_complete
from harness import load_dataset
from options import data_parser, readable_errors, writable_folder


def main():
    parser = data_parser()
    parser.add_argument("--out", default="runs", metavar="DIR",
        help="folder for the picture (%(default)s)")  # fmt: skip
    options = parser.parse_args()
    writable_folder(parser, "--out", options.out)

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
    with replace_when_complete(path) as temporary:
        figure.savefig(temporary, dpi=100)
    print(f"Picture: {path}")
    print("Next:    python experiments/baseline1.py")


if __name__ == "__main__":
    with readable_errors():
        main()
