"""Images, their labels, and what is on them: whatever the networks learn from has this form."""

import hashlib
import os
from typing import NamedTuple

from machinery.errors import UsageError, printable

import numpy as np

CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

# sha256 of the four arrays of CIFAR-10's official files, as C-contiguous uint8.
CIFAR10_SHA256 = {
    "x_train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "y_train": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "x_test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "y_test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}
ARRAYS = tuple(CIFAR10_SHA256)

MOST_CHARACTERS = 100  # in the name of a class
SMALLEST_SIZE, MOST_IMAGE_SIZE = 8, 512  # in pixels; of 8, three poolings leave one


class Dataset(NamedTuple):
    """Images to train on and to test on.

    Images are uint8 (n, size, size, 3) in 0..255, labels (n,), the classes' indices, of the
    smallest unsigned type, all C-contiguous. `sha256` has the hash of each array by its name.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    class_names: tuple
    sha256: dict
    source: str = ""

    def arrays(self):
        """Return the four arrays by name."""
        return {name: getattr(self, name) for name in ARRAYS}

    def image_size(self):
        """Return height and width of an image in pixels."""
        return self.x_train.shape[1]

    def is_cifar10(self):
        """Tell whether the arrays are CIFAR-10 to the last bit, in the official order."""
        return self.sha256 == CIFAR10_SHA256


def validated(x_train, y_train, x_test, y_test, class_names=None):
    """Return arrays as a `Dataset`.

    Args:
        x_train, x_test: images. y_train, y_test: indices of classes, or one-hot.
        class_names: of all classes. None: those of CIFAR-10 if there are ten classes, numbers if
            not.

    Raises:
        ValueError: if they do not have the form that `Dataset` has, or a class has no images.
    """
    size = x_train.shape[1] if x_train.ndim == 4 else 32
    if size % SMALLEST_SIZE or not SMALLEST_SIZE <= size <= MOST_IMAGE_SIZE:
        raise ValueError(
            f"height and width of its images, {size}, are no multiple of {SMALLEST_SIZE} up to "
            f"{MOST_IMAGE_SIZE} pixels"
        )
    arrays = []
    for kind, images, labels in (("training", x_train, y_train), ("test", x_test, y_test)):
        labels = indices_of(labels, kind)
        if images.dtype != np.uint8 or images.shape != (len(labels), size, size, 3):
            raise ValueError(
                f"{len(labels)} {kind} labels need uint8 images of shape "
                f"({len(labels)}, {size}, {size}, 3), got {images.dtype} {images.shape}"
            )
        arrays += [np.ascontiguousarray(images), labels]
    if class_names:
        require_class_names(class_names)
    classes = len(class_names) if class_names else int(max(arrays[1], default=0)) + 1
    if classes < 2:
        raise ValueError("all images are of one class: there is nothing to tell apart")
    for kind, labels in (("training", arrays[1]), ("test", arrays[3])):
        if not np.array_equal(np.unique(labels), np.arange(classes)):
            raise ValueError(f"the {kind} labels are not the {classes} classes 0 to {classes - 1}")
    require_memory("the images", len(x_train) + len(x_test), size, classes)
    if not class_names:
        numbers = tuple(f"class {number}" for number in range(classes))
        class_names = CLASS_NAMES if classes == len(CLASS_NAMES) else numbers
    hashes = (hashlib.sha256(array).hexdigest() for array in arrays)
    return Dataset(*arrays, tuple(class_names), dict(zip(ARRAYS, hashes, strict=True)))


def require_memory(what, images, size, classes):
    """Refuse images that need more than a quarter of the memory: there will be copies.

    Args:
        what: they are, for the message.
        images: how many; size: of each in pixels; classes: how many, for the one-hot labels.

    Raises:
        UsageError: says what they need.
    """
    needed = images * (size * size * 3 + 8 * classes)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory / 4:
        raise UsageError(
            f"{what}: {images:,} of {size}x{size} pixels in {classes:,} classes take "
            f"{needed / 1e9:.1f} GB, too much for {memory / 1e9:.0f} GB of memory: take a smaller "
            "--image-size, or fewer pictures"
        )


def require_class_names(names):
    """Raise ValueError unless these are different texts that can be printed, and two at least."""
    if not isinstance(names, list | tuple) or len(names) < 2:
        raise ValueError("it has no list of two classes or more")
    if len({str(name).strip() for name in names} - {""}) < len(names):
        raise ValueError("two of its classes have the same name, or one has none")
    for name in names:
        if not isinstance(name, str) or name != printable(name):
            raise ValueError(f"the class {name!a} has characters in its name that can't be printed")
        if len(name) > MOST_CHARACTERS:
            raise ValueError(f"the class {name[:20]}... has more than {MOST_CHARACTERS} characters")


def indices_of(labels, kind):
    """Return labels, which may be one-hot, as indices (n,), of the smallest unsigned type."""
    labels = np.asarray(labels)
    if labels.ndim == 2 and labels.shape[1] > 1:
        if not ((labels == 0) | (labels == 1)).all() or not (labels.sum(axis=1) == 1).all():
            raise ValueError(f"the {kind} labels are neither indices of classes nor one-hot")
        labels = labels.argmax(axis=1)
    labels = labels.reshape(-1)
    if labels.dtype.kind not in "ui":
        raise ValueError(f"the {kind} labels are not whole numbers")
    # Each class has an image: a label as large as their number says that a class has none.
    if len(labels) and not 0 <= labels.min() <= labels.max() < len(labels):
        raise ValueError(
            f"the {kind} labels are not those of classes counted from 0, with an image at least"
        )
    return labels.astype(np.min_scalar_type(labels.max(initial=0)))
