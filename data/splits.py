"""Which images are trained on, and which ones the training is judged by."""

import numpy as np


def balanced_indices(labels, count):
    """Return the indices of `count` images, as equally many of each class as possible.

    The first images of each class are taken.

    Args:
        labels: uint8 (n,).
        count: how many, at most n.

    Returns:
        Sorted int64 (count,).
    """
    rank_in_class = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = labels == label
        rank_in_class[members] = np.arange(members.sum())
    return np.sort(np.lexsort((labels, rank_in_class))[:count])


def hold_out(images, labels):
    """Split a tenth off, balanced over the classes, to choose by without looking at the test set.

    Args:
        images: (n, height, width, channels). labels: one-hot (n, classes).

    Returns:
        `(images, labels), (held_out_images, held_out_labels)`.
    """
    held_out = np.zeros(len(labels), dtype=bool)
    held_out[balanced_indices(labels.argmax(axis=1), max(10, len(labels) // 10))] = True
    return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])
