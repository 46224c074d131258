"""Data augmentation: another variant of an image each time it is seen, its label still true.

Keras has layers for this, RandomFlip and RandomTranslation, which are slower here; and as the same
random generator draws the same variants, a run can be resumed.
"""

import numpy as np


def flip_and_shift(images, indices, epoch, random):
    """Flip half of the images horizontally, and shift each by up to 10 % of its size.

    A shifted image's empty border repeats its edge pixels. A flipped deer is a deer.

    Args:
        images: float32 (n, height, width, channels).
        indices, epoch: not used, every variant is drawn anew; see `data.batches`.
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
    """Read images off at any coordinates by bilinear interpolation.

    Along one axis that is a matrix multiplication with weights: 1 where a coordinate meets a pixel,
    0 from the next pixel on. Idea: Jaderberg et al. 2015, https://arxiv.org/abs/1506.02025

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
