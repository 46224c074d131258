"""Compare ways to train: the table of their speeds, ratios and memory."""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import NamedTuple

from data.cifar10 import CIFAR10_TRAINING_IMAGES, SAMPLE_TRAINING_IMAGES
from data.download import find_dataset
from experiments import TUTORIAL, load_experiment
from machinery.inspection import operations_per_image
from machinery.options import (
    add_data,
    add_mixed_precision,
    parse_options,
    script_parser,
    whole_number,
)

import tensorflow as tf
from workers import BATCH_SIZE, Worker

AVX2 = {"ONEDNN_MAX_CPU_ISA": "AVX2"}
MEMORY_STEPS = 20  # a whole run needs no more memory than its first steps and its evaluation
MATRIX_SIZE = 2048  # of the multiplications that show what the processor can do at best


class Way(NamedTuple):
    """A way to train.

    Fields:
        train: function of a connection, an experiment's name and the options, which takes turns;
            see `workers.Worker`. One that reports memory also takes how many steps to train for.
        environment: variables to set for its process.
    """

    train: Callable
    environment: dict = {}  # noqa: RUF012  (a NamedTuple's default, which nobody changes)


def comparison_parser(experiments=TUTORIAL):
    """Return the parser of the options that all comparisons share.

    Args:
        experiments: names of those to measure, unless `--experiments` says otherwise.
    """
    parser = script_parser()
    add_data(parser)
    add_mixed_precision(parser)
    add = parser.add_argument
    add("--as-avx2", action="store_true",
        help="as nearly as possible like a processor without AVX-512: oneDNN is limited to AVX2, "
        "and off in the plain way, TensorFlow's default there; our way computes in float32"
    )  # fmt: skip
    add_experiments(parser, experiments)
    add("--images", type=whole_number(BATCH_SIZE, CIFAR10_TRAINING_IMAGES), default=5_000,
        metavar="N", help="train on N images per epoch, less what does not fill a batch, and "
        "evaluate on N/5 (%(default)s)")  # fmt: skip
    add("--rounds", type=whole_number(1), default=5, metavar="N",
        help="epochs that each way trains (%(default)s)")  # fmt: skip
    return parser


def add_experiments(parser, experiments=TUTORIAL):
    names = "all" if experiments == TUTORIAL else " ".join(experiments)
    parser.add_argument("--experiments", nargs="+", metavar="NAME", choices=TUTORIAL,
        default=experiments, help=f"which of the experiments to measure ({names})")  # fmt: skip


def parse_comparison(parser):
    options = parse_options(parser)
    if options.sample:
        options.images = min(options.images, SAMPLE_TRAINING_IMAGES)
    options.images -= options.images % BATCH_SIZE  # whole batches are easy to count
    if options.as_avx2:
        options.mixed_precision = False
    return options


def compare(ways, references, options):
    """Print a row for each experiment and way: speeds, their ratios to other ways', memory.

    Args:
        ways: a `Way` for each name.
        references: the names of those to divide by. The first is also what whole epochs are
            compared with.
        options: what `parse_comparison` returned.
    """
    find_dataset(options.data, options.sample)  # downloads, or fails, before anything starts
    common = AVX2 if options.as_avx2 else {}

    def start(way, *arguments):
        environment = common | ways[way].environment
        return Worker(ways[way].train, *arguments, environment=environment)

    heads = ["experiment", "way", "training, images/s", *(f"to {way}" for way in references)]
    heads += ["GFLOP/s", "whole epoch, images/s", f"to {references[0]}", "peak memory"]
    print(f"\nMedian of {options.rounds} turns, and of their ratios (least to most).\n")
    print(f"| {' | '.join(heads)} |\n|---|---|{'---:|' * (len(heads) - 2)}", flush=True)
    dtypes = ["float32", "bfloat16"] if options.mixed_precision else ["float32"]
    ceiling = Worker(multiply_matrices, dtypes, environment=common)
    ceilings = []
    for name in options.experiments:
        operations = operations_per_image(load_experiment(name).define_model())
        workers = {way: start(way, name, options) for way in ways}
        turns = {way: [] for way in ways}
        for _ in range(options.rounds):
            ceilings.append(ceiling.take_turn())
            for way, worker in workers.items():
                turns[way].append(worker.take_turn())
        for worker in workers.values():
            worker.stop()
        for way in ways:
            speed = median(turn["training"] for turn in turns[way])
            columns = [f"`{name}`", way, f"{speed:,.0f}"]
            columns += [ratio(turns, way, other, "training") for other in references]
            columns.append(f"{speed * operations / 1e9:.0f}")
            if "epoch" in turns[way][0]:
                columns.append(f"{median(turn['epoch'] for turn in turns[way]):,.0f}")
                columns.append(ratio(turns, way, references[0], "epoch"))
                worker = start(way, name, with_all_images(options), MEMORY_STEPS)
                columns.append(f"{worker.first_turn['memory'] / 1e9:.2f} GB")
                worker.stop()
            columns += [""] * (len(heads) - len(columns))  # PyTorch only trains
            print(f"| {' | '.join(columns)} |", flush=True)
    ceiling.stop()
    for dtype in dtypes:
        speeds = [turn[dtype] for turn in ceilings]
        print(f"\nMatrix multiplication, {dtype}, GFLOP/s: {spread(speeds, 0)}")


def ratio(turns, way, other, what):
    """Return the spread of the ratios of what two ways did in the same round."""
    pairs = zip(turns[way], turns[other], strict=True)
    return spread([mine[what] / theirs[what] for mine, theirs in pairs], 2)


def spread(values, digits):
    """Return a median with the least and the most, as text."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def with_all_images(options):
    return argparse.Namespace(**{**vars(options), "images": None})


def multiply_matrices(connection, dtypes):
    """Measure what the processor can do at best: GFLOP/s in multiplying large matrices."""
    while True:
        connection.recv()
        gflops = {}
        for dtype in dtypes:
            matrix = tf.cast(tf.random.normal((MATRIX_SIZE, MATRIX_SIZE)), dtype)
            start, count = time.perf_counter(), 0
            while time.perf_counter() - start < 1:
                tf.matmul(matrix, matrix)
                count += 1
            seconds = time.perf_counter() - start
            gflops[dtype] = count * 2 * MATRIX_SIZE**3 / seconds / 1e9
        connection.send(gflops)
