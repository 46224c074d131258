"""Batches of images: in their order for evaluation, shuffled and augmented for training."""

import keras
import numpy as np


class Batches(keras.utils.PyDataset):
    """Images and labels, a batch at a time, as Keras's `fit`, `evaluate` and `predict` take them.

    Args:
        images: uint8 (n, height, width, channels) in 0..255.
        labels: floats (n, classes), one-hot.
        batch_size: images in a batch; the last one may be smaller.
        prep_pixels: function that scales uint8 images to [0, 1], as float32, in a list.

    A batch is a pair of float32 images in [0, 1] and their labels.
    """

    def __init__(self, images, labels, batch_size, prep_pixels):
        # Two threads prepare batches ahead. With fewer, Keras prefetches through tf.data, whose
        # autotuning sometimes doubles the time of an epoch.
        super().__init__(workers=2)
        self.images, self.labels = images, labels
        self.batch_size, self.prep_pixels = batch_size, prep_pixels
        self.order = np.arange(len(images))

    def __len__(self):
        return -(-len(self.images) // self.batch_size)  # rounded up

    def __getitem__(self, step):
        indices = self.indices(step)
        (images,) = self.prep_pixels(self.images[indices])
        return images, self.labels[indices]

    def indices(self, step):
        """Return the indices of the images in a batch."""
        return self.order[step * self.batch_size : (step + 1) * self.batch_size]


class TrainingBatches(Batches):
    """Batches in a new order each epoch, augmented.

    A callback, `machinery.callbacks.SeedEachEpoch`, calls `shuffle` when an epoch begins.

    Args:
        augment: function `(images, labels, indices, epoch, random) -> (images, labels)` of a
            batch: float32 images in [0, 1], their labels, their indices in the dataset, the
            epoch's index from 0, and a `numpy.random.Generator`. None leaves them as they are.
    """

    def __init__(self, images, labels, batch_size, prep_pixels, augment=None):
        super().__init__(images, labels, batch_size, prep_pixels)
        self.augment = augment
        self.shuffle(0, np.random.default_rng(0))

    def shuffle(self, epoch, random):
        """Draw the order of an epoch, and a seed for each of its batches.

        Args:
            epoch: its index, from 0.
            random: a `numpy.random.Generator`.
        """
        self.epoch = epoch
        self.order = random.permutation(len(self.images))
        self.batch_seeds = random.integers(2**63, size=len(self))

    def __getitem__(self, step):
        images, labels = super().__getitem__(step)
        if self.augment:
            random = np.random.default_rng(self.batch_seeds[step])
            images, labels = self.augment(images, labels, self.indices(step), self.epoch, random)
        return images, labels
