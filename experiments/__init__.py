"""The experiments, in the order of the tutorial: one idea, one script."""

import importlib

from extensions import EXTENSIONS

TUTORIAL = (
    "baseline1",
    "baseline2",
    "baseline3",
    "dropout",
    "weight_decay",
    "augmentation",
    "increasing_dropout",
    "dropout_augmentation",
    "dropout_augmentation_batchnorm",
)
EXPERIMENTS = (*TUTORIAL, "speedrun")
ROOMS = {"experiments": EXPERIMENTS, "extensions": EXTENSIONS}


def room_of(name):
    """Return the folder of an experiment's script."""
    return next(room for room, names in ROOMS.items() if name in names)


def load_experiment(name):
    """Return the `harness.Experiment` of a script."""
    return importlib.import_module(f"{room_of(name)}.{name}").EXPERIMENT
