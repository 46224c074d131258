"""Which operations does the time of a training step go into? By TensorFlow's profiler."""

import contextlib
import io
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from experiments import load_experiment
from machinery.errors import readable_errors
from machinery.options import add_data, add_mixed_precision, parse_options, script_parser

import keras
import tensorflow as tf
from comparison import add_experiments
from harness_way import run_with_the_harness
from tensorflow.tsl.profiler.protobuf import xplane_pb2
from workers import BATCH_SIZE

STEPS = 14  # the sample has 15, and the first prepares the others


def main():
    parser = script_parser()
    add_data(parser)
    add_mixed_precision(parser)
    add_experiments(parser)
    options = parse_options(parser)
    options.images = (1 + STEPS) * BATCH_SIZE
    tf.config.threading.set_inter_op_parallelism_threads(1)  # one operation after the other
    print("| experiment | operation | ms per step | share |\n|---|---|---:|---:|", flush=True)
    for name in options.experiments:
        profile = Profile()
        experiment = load_experiment(name)._replace(callbacks=(profile,))
        with contextlib.redirect_stdout(io.StringIO()):
            run_with_the_harness(name, experiment, options)
        rows = [(op, ms) for op, ms in profile.operations.most_common() if ms > profile.step / 100]
        rows.append(("everything else", profile.step - sum(ms for _, ms in rows)))
        rows.append(("whole step", profile.step))
        for operation, milliseconds in rows:
            share = milliseconds / profile.step
            print(f"| `{name}` | {operation} | {milliseconds:.1f} | {share:.0%} |", flush=True)


class Profile(keras.callbacks.Callback):
    """Measures the milliseconds of a training step, and of each operation in it.

    Of the first epoch's steps but the first, which prepares them.
    """

    def on_train_batch_end(self, batch, logs=None):
        if batch == 0:
            self.folder = tempfile.TemporaryDirectory()
            tf.profiler.experimental.start(self.folder.name)
            self.start = time.perf_counter()
        elif batch == STEPS:
            self.step = 1000 * (time.perf_counter() - self.start) / STEPS
            tf.profiler.experimental.stop()
            self.operations = self.read_profile()
            self.folder.cleanup()
            self.model.stop_training = True

    def read_profile(self):
        (path,) = Path(self.folder.name).rglob("*.xplane.pb")
        operations = Counter()
        for plane in xplane_pb2.XSpace.FromString(path.read_bytes()).planes:
            for event in (event for line in plane.lines for event in line.events):
                # TensorFlow calls it "a/layer/Conv2D:_MklNativeConv2D" if oneDNN computes it.
                name = plane.event_metadata[event.metadata_id].name
                if operation := re.search(r"\w:(?:_Mkl(?:Native)?)?(\w+)$", name):
                    operations[operation[1]] += event.duration_ps / 1e9 / STEPS
        return operations


if __name__ == "__main__":
    with readable_errors():
        main()
