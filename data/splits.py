"""Which images are trained on, and which ones the training is judged by."""

import re
from typing import NamedTuple

from machinery.errors import UsageError, printable

import numpy as np

MOST_FOLDS = 100


class Fold(NamedTuple):
    """One of the folds of a cross-validation, written `2/5`.

    Fields:
        number: from 1. count: of all folds, at least 2.
    """

    number: int
    count: int

    def __str__(self):
        return f"{self.number}/{self.count}"

    @classmethod
    def parse(cls, text):
        """Return the fold that a text like `2/5` names.

        Raises:
            ValueError: if it names none.
        """
        match = re.fullmatch(r"([1-9][0-9]{0,2})/([1-9][0-9]{0,2})", text)
        fold = cls(*map(int, match.groups())) if match else cls(0, 0)
        if not 1 <= fold.number <= fold.count or not 2 <= fold.count <= MOST_FOLDS:
            raise ValueError(f"{text!r} is not a fold like 1/5, of 2 to {MOST_FOLDS} folds")
        return fold


def balanced_indices(labels, count):
    """Return the indices of `count` images, as equally many of each class as possible.

    The first images of each class are taken.

    Args:
        labels: uint8 (n,).
        count: how many.

    Returns:
        Sorted int64 (count,).

    Raises:
        UsageError: if there are fewer, or more classes than that.
    """
    if count > len(labels):
        raise UsageError(f"--limit {count} is above the {len(labels):,} training images")
    if count < (classes := len(np.unique(labels))):
        raise UsageError(
            f"--limit {count} is too few for {classes} classes: take one of each at least"
        )
    rank_in_class = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        members = labels == label
        rank_in_class[members] = np.arange(members.sum())
    return np.sort(np.lexsort((labels, rank_in_class))[:count])


def deal_into_folds(labels, count):
    """Return the fold of each image: all folds have as many of each class, give or take one.

    The images are sorted by class and dealt like cards. Kohavi 1995, "A Study of Cross-Validation
    and Bootstrap for Accuracy Estimation and Model Selection"

    Args:
        labels: uint8 (n,).
        count: of folds.

    Returns:
        int64 (n,), from 1 to `count`.

    Raises:
        UsageError: if there are fewer images than folds.
    """
    if count > len(labels):
        raise UsageError(f"{len(labels)} training images are too few for {count} folds")
    folds = np.empty(len(labels), dtype=np.int64)
    folds[np.argsort(labels, kind="stable")] = 1 + np.arange(len(labels)) % count
    return folds


def train_val_test_split(train, test, evaluated_on, fold=None):
    """Return what to train on, what to evaluate on after each epoch, and what to test on at last.

    Args:
        train, test: images (n, height, width, channels) and one-hot labels (n, classes), a pair.
        evaluated_on: "test": the test images, as the tutorial does; "validation": some of the
            training images, held out; None: nothing, and all images are for training.
        fold: which part to hold out, see `hold_out`.

    Returns:
        Three pairs like those of the arguments. Without a test, the last two have no images.
    """
    if evaluated_on == "validation":
        return *hold_out(*train, fold), test
    if evaluated_on == "test":
        return train, test, test
    nothing = tuple(array[:0] for array in test)
    return tuple(map(np.concatenate, zip(train, test, strict=True))), nothing, nothing


def hold_out(images, labels, fold=None, class_names=None):
    """Split a part of each class off, to choose by without looking at the test set.

    Args:
        images: (n, height, width, channels). labels: one-hot (n, classes).
        fold: a `Fold`, which is split off. None splits the first tenth of each class off, but one
            image at least.
        class_names: for errors; None calls classes by their numbers.

    Returns:
        `(images, labels), (held_out_images, held_out_labels)`.

    Raises:
        UsageError: if a class has a single image, or there are fewer images than folds.
    """
    classes = labels.argmax(axis=1)
    members = {label: np.flatnonzero(classes == label) for label in np.unique(classes)}
    for label, indices in members.items():
        if len(indices) == 1:
            name = printable(class_names[label]) if class_names else label
            raise UsageError(
                f"the class {name} has one training image: to hold some out, it needs two or more"
            )
    if fold:
        held_out = deal_into_folds(classes, fold.count) == fold.number
    else:
        held_out = np.zeros(len(classes), dtype=bool)
        for indices in members.values():
            held_out[indices[: max(1, len(indices) // 10)]] = True
    return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])
