"""Pictures of your own: in folders, or a zip of folders, that are named after what is on them.

Either train/CLASS/* and test/CLASS/*, or CLASS/*, of which a fifth is set aside for the test.
"""

import hashlib
import io
import os
import sys
import unicodedata
from collections.abc import Callable
from itertools import filterfalse
from pathlib import Path
from typing import NamedTuple

from data.dataset import require_memory, validated
from data.image import MOST_BYTES, read_image
from machinery.errors import DamagedError, UsageError
from machinery.files import blame, limited_memory, reading

import keras
import numpy as np

MOST_LEFT_OUT = 1 / 10  # of the files may be no pictures
TEST_SHARE = 1 / 5
SPLITS = {"train": "train", "training": "train", "test": "test", "testing": "test"}
FORM = "the pictures must be in train/CLASS/ and test/CLASS/, or in CLASS/"


class Picture(NamedTuple):
    """A file that should be a picture.

    Fields:
        parts: its name, after those of the folders that it is in.
        open: function that opens it for reading, as a context manager.
    """

    parts: tuple
    open: Callable

    def __str__(self):
        return "/".join(self.parts)


def read_folder(folder, size):
    """Read the pictures in a folder.

    Args:
        folder: a `Path`.
        size: height and width to scale them to, in pixels.

    Returns:
        A `data.dataset.Dataset`.

    Raises:
        UsageError: if they are in other folders than this needs, a class lacks pictures, more than
            a tenth of the files are no pictures, a symbolic link leads elsewhere, or they need too
            much memory.
    """
    root = folder.resolve()
    folders, pictures = set(), []

    def refuse(error):  # a folder that can't be read: its pictures would be missing silently
        raise error

    for place, names_of_folders, names_of_files in walk(root, onerror=refuse):
        for path in (Path(place, name) for name in (*names_of_folders, *names_of_files)):
            if path.is_symlink() and (
                path.is_dir() or not Path(os.path.realpath(path)).is_relative_to(root)
            ):
                raise UsageError(f"{path} is a symbolic link: put a copy in its place")
        folders |= {Path(place, name).relative_to(root).parts for name in names_of_folders}
        for path in (Path(place, name) for name in names_of_files):
            parts = path.relative_to(root).parts
            pictures.append(Picture(parts, lambda path=path: reading(path, MOST_BYTES)))
    return read_pictures(folder, folders, pictures, size)


def read_zip(path, archive, size):
    """Read the pictures in a zip of folders; all of them may lie in one more folder.

    Args:
        path: of the zip, for messages.
        archive: the open `zipfile.ZipFile`.
        size: see `read_folder`, for what is returned and raised, too.
    """
    folders, pictures = set(), []
    for member in archive.infolist():
        name = member.filename.replace("\\", "/")  # some programs of Windows write it so
        is_folder = name.endswith("/")
        parts = tuple(part for part in name.split("/") if part not in ("", "."))
        if any(map(is_hidden, parts)):
            continue
        folders |= {parts[:depth] for depth in range(1, len(parts) + is_folder)}
        if not is_folder:
            pictures.append(Picture(parts, lambda member=member: unpacked(archive, member)))
    tops = {parts[0] for parts in folders}
    if len(tops) == 1 and not split_of(*tops) and any(len(parts) == 2 for parts in folders):
        folders = {parts[1:] for parts in folders if len(parts) > 1}
        pictures = [picture._replace(parts=picture.parts[1:]) for picture in pictures]
    return read_pictures(path, folders, pictures, size)


def unpacked(archive, member):
    """Return a member of a zip as an open file in memory.

    A picture is read here and there: each way back would unpack the archive from its beginning.
    """
    if member.file_size > MOST_BYTES:
        raise ValueError(f"longer than the {MOST_BYTES:,} bytes that are allowed")
    file = io.BytesIO(archive.read(member))
    file.name = member.filename
    return file


def walk(folder, onerror):
    """Do as `os.walk`, but leave out what is hidden."""
    for place, names_of_folders, names_of_files in os.walk(folder, onerror=onerror):
        names_of_folders[:] = filterfalse(is_hidden, names_of_folders)  # nor are these walked into
        yield place, names_of_folders, list(filterfalse(is_hidden, names_of_files))


def is_hidden(name):
    """Tell whether a file or folder is the system's own: .DS_Store, __MACOSX and the like."""
    return name.startswith(".") or name == "__MACOSX"


def split_of(folder):
    """Return what the images in a folder are for by its name, "train" or "test"; "" if neither."""
    return SPLITS.get(folder.casefold(), "")


def composed(parts):
    """Return names with each letter as one character: macOS writes `é` as two, others as one."""
    return tuple(unicodedata.normalize("NFC", part) for part in parts)


def read_pictures(path, folders, pictures, size):
    """Read pictures, and label them by the folders that they are in.

    Args:
        path: where they are, for messages.
        folders: the parts of each folder, a set of tuples.
        pictures: a list of `Picture`.
        size: see `read_folder`, for what is returned and raised, too.
    """
    folders = set(map(composed, folders))
    tops = {parts[0] for parts in folders}
    splits = [split_of(top) for top in tops]
    has_splits = any(splits)
    if has_splits and sorted(splits) != ["test", "train"]:
        raise UsageError(f"{path} has folders {', '.join(sorted(tops))}: {FORM}")
    depth = 1 if has_splits else 0  # at which the name of the class is
    class_names = sorted({parts[depth] for parts in folders if len(parts) > depth})
    if len(class_names) < 2:
        found = f"the class {class_names[0]} alone" if class_names else "no classes"
        raise UsageError(f"{path} has {found}, and there must be two at least: {FORM}")

    pictures = [each._replace(parts=composed(each.parts)) for each in pictures]
    pictures.sort(key=lambda each: each.parts)
    in_classes = [each for each in pictures if len(each.parts) > depth + 1]
    if len(in_classes) < len(pictures):
        print(f"Left out: {len(pictures) - len(in_classes)} files in no folder of a class")
    order = np.random.default_rng(0).permutation(len(in_classes))  # no class comes first
    require_memory(path, len(in_classes), size, len(class_names))
    pictures, images = decoded(path, [in_classes[index] for index in order], size)
    label_of = {name: label for label, name in enumerate(class_names)}
    labels = np.array([label_of[each.parts[depth]] for each in pictures], dtype=np.int64)
    if has_splits:
        is_test = np.array([split_of(each.parts[0]) == "test" for each in pictures], dtype=bool)
    else:
        is_test = set_aside(images, labels)
    for split, chosen in (("train", ~is_test), ("test", is_test)):
        counts = np.bincount(labels[chosen], minlength=len(class_names))
        if not counts.all():
            lacking = class_names[counts.argmin()]
            where = f"{split}/{lacking}" if has_splits else f"{lacking} (it needs two at least)"
            raise UsageError(f"{path} has no pictures in {where}: add some, or leave the class out")
    say_what_is_in_both(images[~is_test], images[is_test])
    with blame(path):
        return validated(
            images[~is_test], labels[~is_test], images[is_test], labels[is_test], class_names
        )


def decoded(path, pictures, size):
    """Return those of the files that are pictures, and their images.

    Returns:
        `(pictures, images)`: a list, and uint8 (n, size, size, 3).
    """
    images = np.empty((len(pictures), size, size, 3), np.uint8)
    kept, left_out = [], []
    bar = keras.utils.Progbar(len(pictures), verbose=sys.stdout.isatty(), unit_name="picture")
    for number, picture in enumerate(pictures, 1):
        try:
            with blame(picture), limited_memory(), picture.open() as file:
                images[len(kept)] = read_image(file, size)
            kept.append(picture)
        except DamagedError as error:
            left_out.append(error)
        bar.update(number)
    if len(left_out) > MOST_LEFT_OUT * len(pictures):
        raise UsageError(
            f"{path}: {len(left_out)} of {len(pictures)} files are no pictures, for example "
            f"{left_out[0]}: move them elsewhere"
        )
    if left_out:
        print(f"Left out, as no pictures: {len(left_out)} files, for example {left_out[0]}")
    return kept, images[: len(kept)]


def set_aside(images, labels):
    """Return which images to test on: a fifth of each class, those with the smallest hashes.

    That is as good as chance, and where pictures are added later, nearly all of those that were
    trained on are trained on again.

    Args:
        images: uint8 (n, size, size, 3). labels: int64 (n,).

    Returns:
        bool (n,).
    """
    hashes = np.array([hashlib.sha256(image).hexdigest() for image in images])
    is_test = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(hashes[members], kind="stable")]
        is_test[members[: max(len(members) > 1, round(TEST_SHARE * len(members)))]] = True
    return is_test


def say_what_is_in_both(x_train, x_test):
    """Print how many pictures to test on are among those to train on, if any."""
    trained = {image.tobytes() for image in x_train}
    count = sum(image.tobytes() in trained for image in x_test)
    if count:
        print(
            f"Warning: {count} of the {len(x_test):,} pictures to test on are among those to train "
            "on: the accuracy will be too good, unless you remove them from one of the two"
        )
