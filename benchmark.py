"""Measure how fast the experiments train here, and how fast the plain way of writing them would.

The plain way: all images in memory as float32, `model.fit` with its defaults, nothing but Keras's
own layers, validation in batches of the training's size. The ways take turns in one run, epoch by
epoch: a machine that slows down for a while slows all of them, and their ratio stands.
"""

import argparse
import contextlib
import importlib.util
import io
import multiprocessing
import os
import re
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from statistics import median

import keras
import tensorflow as tf
from tensorflow.tsl.profiler.protobuf import xplane_pb2

import harness
from dataset import SAMPLE_TRAINING_IMAGES, find_cifar10
from finalize import EXPERIMENTS
from harness import load_dataset, prep_pixels, run_experiment
from options import add_mixed_precision, data_parser, option_parser, readable_errors, whole_number
from results import operations_per_image

NINE = [name for name in EXPERIMENTS if name != "speedrun"]
BATCH_SIZE = 64
IDEAS = (
    "bfloat16", "fused-batch-norm", "random-bytes", "matrix-augmentation",
    "large-evaluation-batches", "untuned-pipelines", "augmentation",
)  # fmt: skip
ENDLESS = 1_000_000  # epochs: a worker trains until it is stopped
MEMORY_STEPS = 20  # a whole run needs no more memory than its first steps and its evaluation
MATRIX_SIZE = 2048  # of the products that show what the processor can do at best
WINDOW_SECONDS = 5  # of --steady
PROFILED_STEPS = 14  # --sample has 15, and the first prepares the others


def main():
    parser = data_parser()
    add_mixed_precision(parser)
    add = parser.add_argument
    add("--experiments", nargs="+", metavar="NAME", choices=NINE, default=NINE,
        help="which of the experiments to measure (all)")  # fmt: skip
    least = (PROFILED_STEPS + 1) * BATCH_SIZE
    add("--images", type=whole_number(least, 50_000), default=5_000, metavar="N",
        help="train on N images per epoch, less what does not fill a batch, and evaluate on N/5 "
        "(%(default)s)")  # fmt: skip
    add("--rounds", type=whole_number(1), default=5, metavar="N",
        help="epochs that each way trains (%(default)s)")  # fmt: skip
    add("--torch", action="store_true", help="measure PyTorch too, if it is installed")
    add("--without", nargs="*", choices=IDEAS, metavar="IDEA",
        help=f"measure our way also with an idea left out: {', '.join(IDEAS)} (all of them in turn)"
    )  # fmt: skip
    add("--steady", type=whole_number(1), metavar="MINUTES",
        help="instead: train baseline3 on all images for so long, and tell how the speed varies "
        f"from one window of {WINDOW_SECONDS} seconds to the next")  # fmt: skip
    add("--profile", action="store_true",
        help="instead: tell which operations the time of a training step goes into")  # fmt: skip
    options = parser.parse_args()
    if options.torch and not importlib.util.find_spec("torch"):
        parser.error("argument --torch: PyTorch is not installed, `pip install torch` does that")
    if (options.steady or options.profile) and (options.torch or options.without is not None):
        parser.error("--torch and --without compare speeds, --steady and --profile do not")
    if options.sample:
        options.images = min(options.images, SAMPLE_TRAINING_IMAGES)
    options.images -= options.images % BATCH_SIZE  # whole batches are easy to count
    if options.steady:
        measure_steadiness(options)
    elif options.profile:
        print_profiles(options)
    else:
        compare_ways(options)


def compare_ways(options):
    """Print a row for each experiment and way: speeds, their ratios to other ways', memory."""
    ways = {"plain": train_plainly, "ours": train_with_the_harness}
    if options.without is not None:
        for idea in options.without or IDEAS:
            ways[f"without {idea}"] = partial(train_with_the_harness, without=idea)
    if options.torch:
        ways |= {"PyTorch": train_with_pytorch, "PyTorch, bfloat16": train_with_pytorch_bfloat16}
    references = [way for way in ("plain", "ours", "PyTorch") if way in ways]
    heads = ["experiment", "way", "training, images/s", *(f"to {way}" for way in references)]
    heads += ["GFLOP/s", "whole epoch, images/s", "to plain", "peak memory"]
    print(f"Median of {options.rounds} turns, and of their ratios (least to most).\n")
    print(f"| {' | '.join(heads)} |\n|---|---|{'---:|' * (len(heads) - 2)}", flush=True)
    ceiling = Worker(multiply_matrices)
    ceilings = []
    for name in options.experiments:
        operations = operations_per_image(experiment_of(name).define_model())
        workers = {way: Worker(train, name, options) for way, train in ways.items()}
        turns = {way: [] for way in ways}
        for _ in range(options.rounds):
            ceilings.append(ceiling.take_turn())
            for way, worker in workers.items():
                turns[way].append(worker.take_turn())
        for worker in workers.values():
            worker.stop()
        for way, train in ways.items():
            speed = median(turn["training"] for turn in turns[way])
            columns = [f"`{name}`", way, f"{speed:,.0f}"]
            columns += [ratio(turns, way, reference, "training") for reference in references]
            columns.append(f"{speed * operations / 1e9:.0f}")
            if "epoch" in turns[way][0]:
                columns.append(f"{median(turn['epoch'] for turn in turns[way]):,.0f}")
                columns.append(ratio(turns, way, "plain", "epoch"))
                columns.append(peak_memory(train, name, options))
            columns += [""] * (len(heads) - len(columns))  # PyTorch only trains
            print(f"| {' | '.join(columns)} |", flush=True)
    ceiling.stop()
    for dtype in ceilings[0]:
        print(f"\nProducts of matrices, {dtype}: {spread([turn[dtype] for turn in ceilings], 0)}")


def ratio(turns, way, other, what):
    pairs = zip(turns[way], turns[other], strict=True)
    return spread([ours[what] / theirs[what] for ours, theirs in pairs], 2)


def spread(values, digits):
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def peak_memory(train, name, options):
    worker = Worker(train, name, with_all_images(options), MEMORY_STEPS)
    worker.stop()
    return f"{worker.first_turn['memory'] / 1e9:.2f} GB"


def with_all_images(options):
    return argparse.Namespace(**{**vars(options), "images": None})


# Taking turns


class Worker:
    """A process that trains for an epoch when it is its turn, and waits otherwise."""

    def __init__(self, train, *arguments):
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=train, args=(theirs, *arguments), daemon=True)
        self.process.start()
        theirs.close()  # so that recv() fails, instead of waiting, when the process dies
        self.first_turn = self.take_turn()  # slower than the others: TensorFlow prepares itself

    def take_turn(self):
        self.connection.send("go")
        return self.connection.recv()

    def stop(self):
        self.process.kill()
        self.process.join()


class TakeTurns(keras.callbacks.Callback):
    """Makes `fit` wait for its turn before each epoch, and tell its images per second after it."""

    def __init__(self, connection, most_steps):
        super().__init__()
        self.connection, self.most_steps = connection, most_steps

    def on_epoch_begin(self, epoch, logs=None):
        self.connection.recv()
        self.start, self.images = time.perf_counter(), 0

    def on_train_batch_end(self, batch, logs=None):
        self.trained = time.perf_counter()
        self.images += BATCH_SIZE
        if batch + 1 == self.most_steps:
            self.model.stop_training = True

    def on_epoch_end(self, epoch, logs=None):
        memory = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        self.connection.send(
            {
                "training": self.images / (self.trained - self.start),
                "epoch": self.images / (time.perf_counter() - self.start),
                "memory": 1024 * int(memory[1]),
            }
        )


# The ways to train


def experiment_of(name):
    return importlib.import_module(f"experiments.{name}").EXPERIMENT


def train_with_the_harness(connection, name, options, most_steps=None, without=None):
    """Train as `python experiments/NAME.py` does, or with one of the `IDEAS` left out."""
    experiment = experiment_of(name)._replace(callbacks=(TakeTurns(connection, most_steps),))
    match without:
        case "bfloat16":
            options.mixed_precision = False
        case "fused-batch-norm":
            harness.fuse_batch_norm = leave_as_it_is
        case "random-bytes":
            harness.save_random_bits = leave_as_it_is
        case "matrix-augmentation" if experiment.augment:
            define_model = partial(augment_with_layers, experiment.define_model)
            experiment = experiment._replace(augment=None, define_model=define_model)
        case "large-evaluation-batches":
            harness.EVALUATION_BATCH_SIZE = BATCH_SIZE
        case "untuned-pipelines":
            harness.UNTUNED = tf.data.Options()
        case "augmentation":  # not to be faster, but to see what it costs
            experiment = experiment._replace(augment=None)
    run_with_the_harness(name, experiment, options)


def leave_as_it_is(model):
    """Stand in for a function that changes a model."""


def augment_with_layers(define_model):
    """Return the network with Keras's augmentation before it, flat and compiled."""
    network = define_model()
    layers = [
        keras.Input((32, 32, 3)),
        keras.layers.RandomFlip("horizontal"),
        keras.layers.RandomTranslation(0.1, 0.1, fill_mode="nearest"),
        *network.layers[1:],
    ]
    model = keras.Sequential(layers)
    model.compile(network.optimizer, network.loss, metrics=["accuracy"])
    return model


def run_with_the_harness(name, experiment, options):
    """Run an experiment for an unlimited number of epochs, and throw its output away."""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        arguments = ["--epochs", str(ENDLESS), "--out", folder]
        settings = option_parser(ENDLESS).parse_args(arguments)
        settings.data, settings.sample = options.data, options.sample
        settings.limit = options.images
        settings.mixed_precision = options.mixed_precision
        run_experiment(name, name, experiment, settings)


def train_plainly(connection, name, options, most_steps=None):
    """Train as one would without the harness."""
    with contextlib.redirect_stdout(io.StringIO()):
        cifar10 = find_cifar10(options.data, options.sample)
    trainX, trainY, testX, testY = load_dataset(cifar10, options.images)
    trainX, testX = prep_pixels(trainX, testX)
    experiment = experiment_of(name)
    define_model = experiment.define_model
    model = augment_with_layers(define_model) if experiment.augment else define_model()
    while True:
        # A fit for each turn: TensorFlow's tuning of input pipelines, which a longer one would
        # leave running, can make it wait for as long as the other ways' turns take.
        model.fit(
            trainX,
            trainY,
            batch_size=BATCH_SIZE,
            validation_data=(testX, testY),
            callbacks=[TakeTurns(connection, most_steps)],
            verbose=0,
        )


def train_with_pytorch(connection, name, options, dtype="float32"):
    """Train the same network as often in PyTorch, channels last, always with the same batch.

    That spares PyTorch what the other ways' times include: choosing and augmenting images.
    """
    sys.modules["triton"] = None  # PyTorch's compiler for GPUs crashes beside TensorFlow
    import torch
    from torch import nn

    torch.set_num_threads(os.cpu_count())
    modules = []
    model = experiment_of(name).define_model()
    for layer in model.layers[1:]:
        inputs = layer.input.shape[-1]
        match type(layer).__name__:
            case "Conv2D":
                modules += [nn.Conv2d(inputs, layer.filters, 3, padding=1), nn.ReLU()]
            case "BatchNormalization" if len(layer.input.shape) == 4:
                modules.append(nn.BatchNorm2d(inputs, momentum=0.01, eps=0.001))
            case "BatchNormalization":
                modules.append(nn.BatchNorm1d(inputs, momentum=0.01, eps=0.001))
            case "MaxPooling2D":
                modules.append(nn.MaxPool2d(2))
            case "Dropout":
                modules.append(nn.Dropout(layer.rate))
            case "Flatten":
                modules.append(nn.Flatten())
            case "Dense" if layer is model.layers[-1]:
                modules.append(nn.Linear(inputs, layer.units))  # its softmax is in the loss
            case "Dense":
                modules += [nn.Linear(inputs, layer.units), nn.ReLU()]
    network = nn.Sequential(*modules).to(memory_format=torch.channels_last)
    kernels = [module.weight for module in network if isinstance(module, nn.Conv2d | nn.Linear)]
    regularizers = [layer.kernel_regularizer for layer in model.layers if hasattr(layer, "kernel")]
    penalties = [
        (kernel, float(regularizer.l2))
        for kernel, regularizer in zip(kernels, regularizers, strict=True)
        if regularizer
    ]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    images = torch.rand(BATCH_SIZE, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH_SIZE,))
    steps = options.images // BATCH_SIZE
    while True:
        connection.recv()
        start = time.perf_counter()
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = nn.functional.cross_entropy(network(images).float(), labels)
            for kernel, weight_decay in penalties:
                loss = loss + weight_decay * kernel.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()
        connection.send({"training": steps * BATCH_SIZE / (time.perf_counter() - start)})


def train_with_pytorch_bfloat16(connection, name, options):
    train_with_pytorch(connection, name, options, "bfloat16")


def multiply_matrices(connection):
    """Measure what the processor can do at best: GFLOP/s of products of large matrices."""
    while True:
        connection.recv()
        gflops = {}
        for dtype in ("float32", "bfloat16"):
            matrix = tf.cast(tf.random.normal((MATRIX_SIZE, MATRIX_SIZE)), dtype)
            start, products = time.perf_counter(), 0
            while time.perf_counter() - start < 1:
                tf.matmul(matrix, matrix)
                products += 1
            seconds = time.perf_counter() - start
            gflops[f"{dtype}, GFLOP/s"] = products * 2 * MATRIX_SIZE**3 / seconds / 1e9
        connection.send(gflops)


# The same speed all the time?


def measure_steadiness(options):
    """Print images per second of each window of a long training, and how they spread."""
    windows = Windows(options.steady * 60)
    experiment = experiment_of("baseline3")._replace(callbacks=(windows,))
    run_with_the_harness("baseline3", experiment, with_all_images(options))
    speeds = sorted(windows.speeds)
    print(f"\nImages/s in {len(speeds)} windows of {WINDOW_SECONDS} s: {spread(speeds, 0)}")
    tenth = len(speeds) // 10
    print(f"Eight windows of ten: {speeds[tenth]:.0f} to {speeds[-1 - tenth]:.0f}")
    slow = sum(speed < 0.6 * median(speeds) for speed in speeds)
    print(f"Below 60 % of the median: {slow}")


class Windows(keras.callbacks.Callback):
    """Counts images per second of training in windows, evaluations not included."""

    def __init__(self, seconds):
        super().__init__()
        self.end, self.speeds = time.perf_counter() + seconds, []

    def on_epoch_begin(self, epoch, logs=None):
        self.start, self.images = time.perf_counter(), 0

    def on_train_batch_end(self, batch, logs=None):
        self.images += BATCH_SIZE
        now = time.perf_counter()
        if now - self.start >= WINDOW_SECONDS:
            self.speeds.append(self.images / (now - self.start))
            print(f"{self.speeds[-1]:,.0f}", file=sys.__stdout__, flush=True)
            self.start, self.images = now, 0
        if now >= self.end:
            self.model.stop_training = True


# Where does the time of a step go?


def print_profiles(options):
    """Print the operations that the time of a training step of each experiment goes into."""
    tf.config.threading.set_inter_op_parallelism_threads(1)  # one operation after the other
    print("| experiment | operation | ms per step | share |\n|---|---|---:|---:|")
    for name in options.experiments:
        profile = Profile()
        experiment = experiment_of(name)._replace(callbacks=(profile,))
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
        elif batch == PROFILED_STEPS:
            self.step = 1000 * (time.perf_counter() - self.start) / PROFILED_STEPS
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
                    operations[operation[1]] += event.duration_ps / 1e9 / PROFILED_STEPS
        return operations


if __name__ == "__main__":
    with readable_errors():
        main()
