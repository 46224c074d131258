"""The experiments, in the order of the tutorial: one idea, one script."""

import importlib

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


def load_experiment(name):
    """Return the `harness.Experiment` of a script."""
    return importlib.import_module(f"experiments.{name}").EXPERIMENT
