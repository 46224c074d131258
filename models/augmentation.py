"""Data augmentation: another variant of an image each time it is seen, its label still true.

Keras has layers for this, RandomFlip and RandomTranslation. They took 7 % of a training step here,
these functions take 1 %; and as the same seed draws the same variants, a run can be resumed.
"""

import tensorflow as tf


def flip_and_shift(images, numbers, epoch, seed):
    """Mirror half of the images and shift each by up to 10 % of its size.

    A shifted image's empty border repeats its edge pixels. A mirrored deer is a deer.

    Args:
        images: float32 (n, height, width, channels).
        numbers, epoch: not used, every variant is drawn anew; see `training_batches`.
        seed: int64 (2,), another one for each batch.

    Returns:
        float32, same shape.
    """
    height, width = images.shape[1:3]
    n = tf.shape(images)[0]
    down, right, mirrored = tf.unstack(tf.random.stateless_uniform((3, n, 1), seed))
    rows = tf.range(height, dtype=tf.float32) + 0.2 * height * (down - 0.5)
    columns = tf.range(width, dtype=tf.float32) + 0.2 * width * (right - 0.5)
    columns = tf.where(mirrored < 0.5, columns, width - 1 - columns)
    return sample(images, clip(rows, height), clip(columns, width))


def clip(coordinates, size):
    """Replace coordinates outside of 0..size - 1 by those of the edge."""
    return tf.clip_by_value(coordinates, 0, size - 1)


def sample(images, rows, columns):
    """Read images off at any coordinates, interpolating linearly between neighbouring pixels.

    Along one axis that is a product with a matrix of weights: 1 where a coordinate meets a pixel,
    0 from the next pixel on. Idea: Jaderberg et al. 2015, https://arxiv.org/abs/1506.02025

    Args:
        images: float32 (n, height, width, channels).
        rows: float32 (n, new height), in 0..height - 1.
        columns: float32 (n, new width), in 0..width - 1.

    Returns:
        float32 (n, new height, new width, channels).
    """

    def read_rows(images, rows):
        height, width, channels = images.shape[1:]
        distances = tf.abs(rows[:, :, None] - tf.range(height, dtype=tf.float32))
        weights = tf.nn.relu(1 - distances)
        pixels = tf.reshape(images, (-1, height, width * channels))
        return tf.reshape(weights @ pixels, (-1, rows.shape[1], width, channels))

    def transpose(images):
        return tf.transpose(images, (0, 2, 1, 3))

    return transpose(read_rows(transpose(read_rows(images, rows)), columns))
