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
ALL = (*EXPERIMENTS, *EXTENSIONS)
FINAL = (*ALL, "speedrun_94")  # whose models finalize.py saves


def room_of(name):
    """Return the folder of an experiment's script."""
    return next(room for room, names in ROOMS.items() if name in names)


def load_experiment(name):
    """Return the `harness.Experiment` of a script, or of a variant of the speed run."""
    _, _, experiment = origin_of(name)
    return experiment


def origin_of(name):
    """Return what made the runs of a name: an experiment, or a variant of the speed run.

    Returns:
        `(command, idea, experiment)`: the script's path and options, a list of words; in a
        sentence, what it changes; the `harness.Experiment`. None if the name is unknown.
    """
    if name in ALL:
        module = importlib.import_module(f"{room_of(name)}.{name}")
        return (
            [f"{room_of(name)}/{name}.py"],
            (module.__doc__ or "-").splitlines()[0],
            module.EXPERIMENT,
        )
    speedrun = importlib.import_module("experiments.speedrun")
    if name not in speedrun.VARIANTS:
        return None
    variant = speedrun.VARIANTS[name]
    options = [word for option, value in variant.items() for word in (f"--{option}", value)]
    idea = f"speedrun with {' '.join(options)}"
    return ["experiments/speedrun.py", *options], idea, speedrun.experiment(**variant)
