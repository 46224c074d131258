"""What several test files need. Tests run in this process, offline, unless they say otherwise."""

import contextlib
import csv
import gc
import io
import json
import os
import queue
import runpy
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

from data import download
from data.cifar10 import SAMPLE
from harness import run_test_harness
from machinery.run import Run

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from keras.src.trainers.data_adapters import py_dataset_adapter
from PIL import Image

ROOT = Path(__file__).parents[1]

# Two steps an epoch, enough for whatever is not about the accuracy.
TINY = ("--sample", "--limit", 20)

gc.freeze()  # TensorFlow's objects stay: no garbage collection need look at them

# A shell starts background jobs with Ctrl-C ignored, and so would be the scripts tested here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test may reach the network by accident, nor read what an earlier run has cached.
OFFLINE = {
    "https_proxy": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "no_proxy": "127.0.0.1",
    "KERAS_HOME": "/nonexistent",
}


def pytest_make_parametrize_id(val, argname):
    """Name no test after bytes: an archive's tell the second in which a process has made it."""
    return argname if isinstance(val, bytes) else None


class ImpatientQueue(queue.Queue):
    """Waits a tenth as long: at the end of each epoch Keras waits 0.1 s, longer than those here."""

    def get(self, block=True, timeout=None):
        return super().get(block, timeout and timeout / 10)


py_dataset_adapter.queue = SimpleNamespace(Queue=ImpatientQueue, Empty=queue.Empty)


class Ended(NamedTuple):
    """How a script ended: its exit code, and what it printed."""

    code: int
    output: str
    errors: str


# In this process: importing TensorFlow takes longer than most of what is tested here.


def call(script, *arguments, cwd):
    """Run a script of the project in this process, as `python SCRIPT ARGUMENTS` would."""
    path = str(ROOT / script)
    return captured(lambda: runpy.run_path(path, run_name="__main__"), path, arguments, cwd)


def train(experiment, *arguments, cwd, name="mine"):
    """Run an experiment of the test's in the harness, as a script NAME.py of its own would."""
    return captured(lambda: run_test_harness(f"{name}.py", experiment), name, arguments, cwd)


def captured(function, script, arguments, cwd):
    keras.utils.clear_session(free_memory=False)  # so that layers are called as in a new process
    output, errors = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        go_offline(patch)
        patch.chdir(cwd)
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        patch.setattr(sys, "path", sys.path[:])
        code = 0
        try:
            function()
        except SystemExit as leaving:
            code = leaving.code or 0
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    return Ended(code, output.getvalue(), errors.getvalue())


def go_offline(patch):
    for name, value in OFFLINE.items():
        patch.setenv(name, value)
    patch.delenv("CIFAR10_PATH", raising=False)
    patch.setattr(download, "KERAS_DATASETS", Path(OFFLINE["KERAS_HOME"]))
    patch.setattr(download, "CACHE", Path(OFFLINE["KERAS_HOME"]) / "cifar10-verified.npz")


@contextlib.contextmanager
def ctrl_c_after(epochs):
    """Interrupt training right after this many epochs have been saved."""
    save_epoch = Run.save_epoch

    def save_and_interrupt(self, row, *arguments):
        save_epoch(self, row, *arguments)
        if row["epoch"] == epochs:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save_epoch", save_and_interrupt)
        yield


# In a process of its own: what a process has to itself, and how it dies.


def start(script, *arguments, cwd, root=ROOT, **environment):
    """Start a script of the project as a user would; return the process."""
    return subprocess.Popen(
        [sys.executable, str(root / script), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **OFFLINE, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Wait for a process to end."""
    output, errors = process.communicate(timeout=300)
    return Ended(process.returncode, output, errors)


def run(script, *arguments, **options):
    return finish(start(script, *arguments, **options))


def interrupt_after_first_epoch(process, signal_number, checkpoint):
    """Send a signal once the first epoch has been saved, in the middle of a later one."""
    deadline = time.monotonic() + 200
    while not checkpoint.exists():
        assert process.poll() is None, finish(process).errors
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal_number)
    return finish(process)


def close_folder(patch, name):
    """Let nobody look into a folder of this name: file permissions don't keep root out."""
    scan = os.scandir

    def refuse(place):
        if str(place).endswith(name):
            raise PermissionError(13, "Permission denied", str(place))
        return scan(place)

    patch.setattr(os, "scandir", refuse)


@contextlib.contextmanager
def moments(folder, copies):
    """Yield a list of copies of a folder, one for each state that a kill can leave it in.

    They are made before and after each file that is moved to its place, or removed. States that
    differ in temporary files alone count as one.

    Args:
        folder: what is copied. copies: a folder to make, for the copies.
    """
    states = {}

    def keep():
        key = str(
            [(path, path.is_file() and path.read_bytes()) for path in sorted(folder.rglob("[!.]*"))]
        )
        if key not in states:
            states[key] = shutil.copytree(folder, copies / str(len(states)))
            kept.append(states[key])

    def watched(function):
        def step(path, *arguments, **options):
            inside = Path(path).resolve().is_relative_to(folder)
            if inside:
                keep()
            try:
                return function(path, *arguments, **options)
            finally:
                if inside:
                    keep()

        return step

    kept = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("replace", "unlink", "mkdir"):
            patch.setattr(os, name, watched(getattr(os, name)))
        yield kept


@contextlib.contextmanager
def rewritten_zip(path):
    """Yield the members of a zip, bytes by name, and write what becomes of them."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    yield members
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)


@contextlib.contextmanager
def rewritten_weights(path):
    """Yield the HDF5 file in a `.keras`, or in a checkpoint, to be changed."""
    with rewritten_zip(path) as members:
        content = io.BytesIO(members["model.weights.h5"])
        with h5py.File(content, "a") as file:
            yield file
        members["model.weights.h5"] = content.getvalue()


# What a script leaves behind.


def assert_refused(ended, *reasons):
    """Check that a script left with one line of error and argparse's exit code."""
    lines = [line for line in ended.errors.splitlines() if "error: " in line]
    assert ended.code == 2, ended
    assert len(lines) == 1 and "Traceback" not in ended.errors
    for reason in reasons:
        assert reason in ended.errors


def numbers(path):
    """The rows of a NAME.csv without the seconds, which differ from run to run."""
    with open(path, newline="") as file:
        return [{**row, "seconds": None} for row in csv.DictReader(file)]


def result(path):
    return json.loads(path.read_text())


def colours(path):
    """The colours of a picture."""
    image = Image.open(path).convert("RGB")
    return {colour for _, colour in image.getcolors(maxcolors=image.width * image.height)}


BLUE, ORANGE = (0x1F, 0x77, 0xB4), (0xFF, 0x7F, 0x0E)  # Matplotlib's


def a_result(experiment="baseline3", epochs=1, remark=""):
    """What a NAME.json says at least."""
    return {
        "name": "mine", "test_accuracy": 10.0, "published_accuracy": None, "remark": remark,
        "settings": {"experiment": experiment, "epochs": epochs, "seed": 0, "validation": "test"},
        "dataset": {}, "started": "2026-01-02T00:00:00", "finished": "2026-01-02T03:04:05",
    }  # fmt: skip


def tiny_network(
    input_shape=(32, 32, 3), classes=10, units=8, optimizer=None, loss="categorical_crossentropy"
):
    """A compiled network that learns little, but quickly."""
    model = keras.Sequential(
        [
            keras.Input(input_shape),
            layers.AveragePooling2D(4),
            layers.Flatten(),
            layers.Dense(units, activation="relu"),
            layers.Dense(classes, activation="softmax", dtype="float32"),
        ]
    )
    # Eagerly: tracing a function for two steps takes longer than the steps.
    model.compile(
        optimizer or keras.optimizers.SGD(0.01), loss, metrics=["accuracy"], run_eagerly=True
    )
    return model


def red_and_blue(sure=1.0):
    """A network that finds class 3 in what is red and class 5 in what is blue, and no class 7.

    Args:
        sure: factor of the scores; at 1,000 and more, probabilities are exactly 0 and 1.
    """
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(2, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )
    kernel = np.zeros((3, 3, 3, 2))
    kernel[1, 1, 0, 0] = kernel[1, 1, 2, 1] = 1
    dense = np.zeros((16, 16, 2, 10))
    dense[:, :, 0, 3] = dense[:, :, 1, 5] = sure
    dense[..., 7] = -sure
    model.set_weights([kernel, np.zeros(2), dense.reshape(-1, 10), np.zeros(10)])
    return model


@pytest.fixture(scope="session")
def sample():
    """The 1,250 real images that ship with the project."""
    return download.read_path(SAMPLE)


@pytest.fixture(scope="session")
def photos(sample):
    """64 of them, as a network takes them."""
    return sample.x_train[:64].astype(np.float32) / 255


@pytest.fixture(autouse=True)
def offline(request, monkeypatch):
    if "dataset" not in request.keywords:
        go_offline(monkeypatch)


@pytest.fixture(autouse=True)
def float32():
    """No test inherits the precision or the names of layers that another one left behind."""
    keras.config.set_dtype_policy("float32")
    keras.utils.clear_session(free_memory=False)
