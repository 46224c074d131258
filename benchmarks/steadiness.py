"""How even is the speed? Train baseline3 on all images and measure it again and again.

Windows are of training only. Whole epochs include what is between: evaluation and checkpoint.
"""

import contextlib
import io
import sys
import time
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from data.cifar10 import CIFAR10_TRAINING_IMAGES, SAMPLE_TRAINING_IMAGES
from experiments import load_experiment
from machinery.errors import readable_errors
from machinery.options import (
    add_data,
    add_mixed_precision,
    parse_options,
    script_parser,
    whole_number,
)

import keras
from comparison import spread
from harness_way import run_with_the_harness
from workers import BATCH_SIZE

WINDOW_SECONDS = 5


def main():
    parser = script_parser()
    add_data(parser)
    add_mixed_precision(parser)
    parser.add_argument("--minutes", type=whole_number(1), default=10, metavar="N",
        help="how long to train (%(default)s)")  # fmt: skip
    options = parse_options(parser)
    options.images = SAMPLE_TRAINING_IMAGES if options.sample else CIFAR10_TRAINING_IMAGES
    options.images -= options.images % BATCH_SIZE  # whole batches are easy to count
    windows = Windows(options.minutes * 60)
    experiment = load_experiment("baseline3")._replace(callbacks=(windows,))
    with contextlib.redirect_stdout(io.StringIO()):
        run_with_the_harness("baseline3", experiment, options)
    speeds = sorted(windows.speeds)
    print(f"\nImages/s in {len(speeds)} windows of {WINDOW_SECONDS} s: {spread(speeds, 0)}")
    tenth = len(speeds) // 10
    print(f"Eight windows of ten: {speeds[tenth]:.0f} to {speeds[-1 - tenth]:.0f}")
    slow = sum(speed < 0.6 * median(speeds) for speed in speeds)
    print(f"Below 60 % of the median: {slow}")
    if windows.epoch_speeds:
        print(f"Images/s in whole epochs: {spread(windows.epoch_speeds, 0)}")


class Windows(keras.callbacks.Callback):
    """Counts images per second, in windows and in whole epochs.

    Args:
        seconds: how long to train.
    """

    def __init__(self, seconds):
        super().__init__()
        self.end = time.perf_counter() + seconds
        self.speeds, self.epoch_speeds = [], []
        self.seconds, self.images = 0, 0  # of the window

    def on_epoch_begin(self, epoch, logs=None):
        now = time.perf_counter()
        if epoch > 0:
            self.epoch_speeds.append(self.epoch_images / (now - self.epoch_start))
        self.epoch_start, self.epoch_images = now, 0
        self.before = now

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        self.seconds += now - self.before
        self.before = now
        self.images += BATCH_SIZE
        self.epoch_images += BATCH_SIZE
        if self.seconds >= WINDOW_SECONDS:
            self.speeds.append(self.images / self.seconds)
            print(f"{self.speeds[-1]:,.0f}", file=sys.__stdout__, flush=True)
            self.seconds, self.images = 0, 0
        if now >= self.end:
            self.model.stop_training = True


if __name__ == "__main__":
    with readable_errors():
        main()
