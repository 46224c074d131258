"""Draw two pictures of the README: the layers of baseline3, and a deer as augmentation shows it.

    python docs/draw_pictures.py

The others are what scripts leave in `runs/`: first_minute.png `experiments/baseline3.py --sample`,
explore_dataset.png `experiments/explore_dataset.py`.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from data.image import load_image
from experiments.augmentation import flip_and_shift
from harness import prep_pixels
from machinery.figures import save_figure

import keras
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

DOCS = Path(__file__).resolve().parent
DEER = DOCS.parent / "sample_image.png"


def draw_augmentation(path):
    """Draw the deer as it is, and nine variants of it as training sees them."""
    (deer,) = prep_pixels(load_image(DEER)[None])
    keras.utils.set_random_seed(0)
    variants = np.repeat(deer, 9, axis=0)
    for layer in flip_and_shift():
        variants = layer(variants, training=True)
    figure, axes = plt.subplots(2, 5, figsize=(8, 3.5), layout="constrained")
    for ax, image in zip(axes.flat, [*deer, *variants], strict=True):
        ax.imshow(image)
        ax.set_xticks([])
        ax.set_yticks([])
    axes.flat[0].set_title("the photo", fontsize=10)
    axes.flat[1].set_title("nine variants of it:", fontsize=10, loc="left")
    for spine in axes.flat[0].spines.values():
        spine.set(linewidth=3, color="tab:blue")
    save_figure(figure, path)


def draw_block(path):
    """Draw the arrays that pass through baseline3: one column for what each layer puts out."""
    layers = [("image", 32, 3, "lightgray")]
    for block in range(3):
        size, filters = 32 // 2**block, 32 * 2**block
        layers += [("convolution 3x3", size, filters, "tab:blue")] * 2
        layers += [("pooling 2x2", size // 2, filters, "tab:orange")]

    figure, ax = plt.subplots(figsize=(10, 4.2), layout="constrained")
    x, edges = 0, []
    for name, size, channels, color in layers:
        width = 2 + channels / 16
        edges.append((x, x + width))
        ax.add_patch(Rectangle((x, -size / 2), width, size, facecolor=color, edgecolor="white"))
        ax.text(x + width / 2, size / 2 + 1, f"{size}x{size}\nx {channels}", ha="center", size=9)
        ax.text(x + width / 2, -size / 2 - 1, name, ha="center", va="top", rotation=90, size=9)
        x += width + 3
    for units, name in ((128, "dense"), (10, "softmax")):
        height = 6 + units / 16
        ax.add_patch(Rectangle((x, -height / 2), 1.5, height, facecolor="tab:green"))
        ax.text(x + 0.75, height / 2 + 1, units, ha="center", size=9)
        ax.text(x + 0.75, -height / 2 - 1, name, ha="center", va="top", rotation=90, size=9)
        x += 4.5
    for block in range(3):
        left, right = edges[1 + 3 * block][0] - 1, edges[3 + 3 * block][1] + 1
        ax.plot([left, left, right, right], [22, 23, 23, 22], color="black", linewidth=1)
        ax.text((left + right) / 2, 24, f"block {block + 1}", ha="center")
    ax.set_xlim(-1, x)
    ax.set_ylim(-32, 27)
    ax.axis("off")
    save_figure(figure, path)


if __name__ == "__main__":
    draw_augmentation(DOCS / "augmentation.png")
    draw_block(DOCS / "block.png")
    print(f"Pictures: {DOCS}/augmentation.png, {DOCS}/block.png")
