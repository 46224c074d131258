import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import pytest
from dataset import SAMPLE, read_npz

ROOT = Path(__file__).parent.parent

# A shell starts background jobs with Ctrl-C ignored, and so would be the scripts tested here.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No test may reach the network by accident, nor read what an earlier run has cached.
OFFLINE = {
    "https_proxy": "http://127.0.0.1:9",
    "http_proxy": "http://127.0.0.1:9",
    "KERAS_HOME": "/nonexistent",
}


def start(script, *arguments, cwd, **environment):
    """Start a script of the project as a user would; return the process."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / script), *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **OFFLINE, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    """Wait for a process; return it with what it printed as `.output` and `.errors`."""
    process.output, process.errors = process.communicate(timeout=300)
    return process


def run(script, *arguments, cwd, **environment):
    return finish(start(script, *arguments, cwd=cwd, **environment))


def interrupt_after_first_epoch(process, signal_number, checkpoint):
    """Send a signal once the first epoch has been saved, in the middle of a later one."""
    deadline = time.monotonic() + 200
    while not checkpoint.exists():
        assert process.poll() is None, finish(process).errors
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal_number)
    return finish(process)


def numbers(path):
    """The rows of a NAME.csv without the seconds, which differ from run to run."""
    with open(path, newline="") as file:
        return [{**row, "seconds": None} for row in csv.DictReader(file)]


def result(path):
    return json.loads(path.read_text())


@pytest.fixture(scope="session")
def sample():
    """The 1,250 real images that ship with the project."""
    return read_npz(SAMPLE)


@pytest.fixture(autouse=True)
def float32():
    """No test inherits the precision of a run that another one made in this process."""
    keras.config.set_dtype_policy("float32")
