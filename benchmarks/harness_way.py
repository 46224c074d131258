"""The experiments' way to train: in the harness, or in the harness without one of its ideas."""

import os
import tempfile

import harness
from experiments import load_experiment
from machinery.options import option_parser

from workers import BATCH_SIZE, TakeTurns

ENDLESS = 1_000_000  # epochs: a worker trains until it is stopped


def train_with_the_harness(connection, name, options, most_steps=None, without=None):
    """Train as `python experiments/NAME.py` does.

    Args:
        connection, most_steps: see `workers.TakeTurns`.
        name: of the experiment.
        options: see `run_with_the_harness`.
        without: an idea to leave out, one of `ideas.IDEAS`.
    """
    experiment = load_experiment(name)._replace(callbacks=(TakeTurns(connection, most_steps),))
    match without:
        case "bfloat16":
            options.mixed_precision = False
        case "fused-batch-norm":
            harness.fuse_batch_norm = leave_as_it_is
    run_with_the_harness(name, experiment, options)


def train_on_cores(connection, name, options, cores):
    """Train as `python experiments/NAME.py` does, on some of the cores."""
    os.sched_setaffinity(0, cores)  # TensorFlow counts them when it first computes
    train_with_the_harness(connection, name, options)


def leave_as_it_is(model):
    """Stand in for a function that changes a model."""


def run_with_the_harness(name, experiment, options):
    """Run an experiment until a callback stops it, and throw away what it leaves behind.

    Args:
        name, experiment: see `harness.run_experiment`.
        options: `data`, `sample`, `images` and `mixed_precision`: which images, how many, and in
            which precision to compute.
    """
    with tempfile.TemporaryDirectory() as folder:
        settings = option_parser(ENDLESS).parse_args([])
        settings.out, settings.epochs, settings.batch_size = folder, ENDLESS, BATCH_SIZE
        settings.data, settings.sample = options.data, options.sample
        settings.limit, settings.mixed_precision = options.images, options.mixed_precision
        harness.run_experiment(name, experiment, settings)
