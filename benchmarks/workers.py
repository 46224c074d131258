"""Processes that take turns, so that a machine that slows down for a while slows all of them."""

import contextlib
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import keras

BATCH_SIZE = 64


class Worker:
    """A process that trains for an epoch when it is its turn, and waits otherwise.

    Args:
        function: what it runs, from a module that it can import. It is given a connection to take
            turns by, and the arguments.
        environment: variables to add to those that the user has set.
    """

    def __init__(self, function, *arguments, environment=None):
        self.connection, theirs = multiprocessing.Pipe()
        # Nobody tells a killed process to clean up: its temporary files go here.
        self.folder = tempfile.TemporaryDirectory()
        self.errors = Path(self.folder.name) / "errors"
        script = Path(__file__).with_name("worker_process.py")
        with open(self.errors, "w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, script, str(theirs.fileno())],
                env=users_environment() | (environment or {}) | {"TMPDIR": self.folder.name},
                pass_fds=[theirs.fileno()],
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        theirs.close()  # so that recv() fails, instead of waiting, when the process dies
        self.connection.send((function, arguments))
        self.first_turn = self.take_turn()  # slower than the others: TensorFlow prepares itself

    def take_turn(self):
        """Have the worker do its part, and return what it tells about it."""
        self.begin_turn()
        return self.end_turn()

    def begin_turn(self):
        with self.failure_told():
            self.connection.send("go")

    def end_turn(self):
        with self.failure_told():
            return self.connection.recv()

    @contextlib.contextmanager
    def failure_told(self):
        try:
            yield
        except (EOFError, ConnectionError) as error:
            self.process.wait()
            raise RuntimeError(f"a worker failed:\n{self.errors.read_text()}") from error

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.connection.close()
        self.folder.cleanup()


def users_environment():
    """Return the environment that this process was started in, without what `machinery` has set.

    A worker starts as the user would have started it. Whether TensorFlow uses oneDNN, for example,
    is `machinery`'s choice in an experiment, and TensorFlow's in code that is written plainly.
    """
    variables = Path("/proc/self/environ").read_bytes().split(b"\0")
    return dict(os.fsdecode(variable).split("=", 1) for variable in variables if b"=" in variable)


class TakeTurns(keras.callbacks.Callback):
    """Makes `fit` wait for its turn before each epoch, and tell its images per second after it.

    An epoch lasts until the next one begins, so that checkpoints, which other callbacks write at
    its end, are counted, and are not written while another worker takes its turn.

    Args:
        connection: to the `Worker`.
        most_steps: how many to train for at most, in all. None trains for as long as `fit` says.
    """

    def __init__(self, connection, most_steps=None):
        super().__init__()
        self.connection, self.most_steps = connection, most_steps
        self.start = None

    def on_epoch_begin(self, epoch, logs=None):
        self.finish_turn()
        self.connection.recv()
        self.start, self.images = time.perf_counter(), 0

    def on_train_batch_end(self, batch, logs=None):
        self.trained = time.perf_counter()
        self.images += BATCH_SIZE
        if batch + 1 == self.most_steps:
            self.model.stop_training = True

    def on_train_end(self, logs=None):
        self.finish_turn()

    def finish_turn(self):
        if self.start is not None:
            now = time.perf_counter()
            memory = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
            self.connection.send(
                {
                    "training": self.images / (self.trained - self.start),
                    "epoch": self.images / (now - self.start),
                    "memory": 1024 * int(memory[1]),
                }
            )
            self.start = None
