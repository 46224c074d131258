"""Data augmentation: a new variant of an image each time it is seen, under the same label.

Keras's layers for this, RandomFlip and RandomTranslation, are slower here. All randomness comes
from one generator, so a resumed run draws the same variants.
"""

import numpy as np


def flip_and_shift(images, indices, epoch, random):
    """Flip each image horizontally with probability 1/2, and shift it by up to 10 % of its size.

    Borders that a shift leaves empty repeat the pixels at the edge.

    Args:
        images: float32 (n, height, width, channels).
        indices, epoch: not used here, but every augmentation is given them.
        random: a `numpy.random.Generator`.

    Returns:
        float32, same shape.
    """
    n, height, width, _ = images.shape
    down, right, flipped = random.random((3, n, 1), dtype=np.float32)
    rows = np.arange(height) + 0.2 * height * (down - 0.5)
    columns = np.arange(width) + 0.2 * width * (right - 0.5)
    columns = np.where(flipped < 0.5, columns, width - 1 - columns)
    return interpolate(images, rows.clip(0, height - 1), columns.clip(0, width - 1))


def interpolate(images, rows, columns):
    """Sample images at fractional coordinates, by bilinear interpolation.

    Along one axis that is a multiplication by a matrix of weights, which fall linearly from 1 at a
    pixel to 0 at the next. Idea: Jaderberg et al. 2015, https://arxiv.org/abs/1506.02025

    Args:
        images: float32 (n, height, width, channels).
        rows: (n, new height), in 0..height - 1.
        columns: (n, new width), in 0..width - 1.

    Returns:
        float32 (n, new height, new width, channels).
    """

    def weights(coordinates, size):
        distances = np.abs(coordinates[:, :, None] - np.arange(size))
        return np.maximum(0, 1 - distances).astype(np.float32)

    n, height, width, channels = images.shape
    images = weights(rows, height) @ images.reshape(n, height, width * channels)
    images = images.reshape(n, -1, width, channels)
    return weights(columns, width)[:, None] @ images
