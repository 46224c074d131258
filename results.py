"""What a run leaves behind, and the model that finalize.py saves: writing it, reading it back."""

import contextlib
import csv
import json
import logging
import os
import platform
from pathlib import Path
from typing import NamedTuple

import h5py
import keras
import numpy as np
import tensorflow as tf

from dataset import replace_when_complete
from options import UsageError


class RunFiles(NamedTuple):
    """Where a run keeps its files; the checkpoint is there only until the run is finished."""

    curves: Path
    numbers: Path
    result: Path
    checkpoint: Path

    @classmethod
    def of(cls, out, name):
        suffixes = ".png", ".csv", ".json", ".checkpoint.keras"
        return cls(*(Path(out) / f"{name}{suffix}" for suffix in suffixes))


def find_earlier_run(files, settings, resume):
    """Return the result of the run whose files are there already, None if there is none.

    Raises:
        UsageError: if it is to be resumed but was started with other settings or never, or if it
            is unfinished but not to be resumed.
    """
    earlier = read_result(files.result)
    if not resume:
        if earlier and not earlier["finished"]:
            done = len(read_history(files.numbers)["epoch"])
            raise UsageError(
                f"{files.result} is a run that has finished {done} of "
                f"{earlier['settings']['epochs']} epochs: go on with --resume, choose another "
                f"--out, or delete {files.result.with_suffix('')}.*"
            )
        return earlier
    if not earlier:
        raise UsageError(f"nothing to resume, there is no {files.result}: start without --resume")
    differences = [
        f"{name} was {earlier['settings'].get(name)}, not {value}"
        for name, value in settings.items()
        if earlier["settings"].get(name) != value
    ]
    if differences:
        raise UsageError(
            f"{files.result} was started with other settings: {'; '.join(differences)}"
        )
    return earlier


def make_way(earlier, files):
    """Move the files of an earlier, finished run to OUT/earlier, named after when it finished."""
    if earlier:
        folder = files.result.parent / "earlier"
        folder.mkdir(exist_ok=True)
        stamp = earlier["finished"].replace(":", "")
        for file in (files.curves, files.numbers, files.result):
            if file.exists():
                file.replace(folder / f"{file.stem}-{stamp}{file.suffix}")
        print(f"The run of {earlier['finished']} was moved to {folder}")
    for leftover in files:
        leftover.unlink(missing_ok=True)


def remove_partial_files(files):
    """Remove what a killed run was just writing; see `dataset.replace_when_complete`."""
    for partial in files.result.parent.glob(f".{files.result.stem}.*"):
        partial.unlink()


def accuracy_line(accuracy, *remarks):
    """Return the tutorial's line, `> 73.500`, and what is special about the number, if anything."""
    remarks = "; ".join(remark for remark in remarks if remark)
    return f"> {accuracy:.3f}" + (f" ({remarks})" if remarks else "")


def remark_on_data(cifar10, options):
    """Return what a result must say about its images, "" if they are all of CIFAR-10."""
    images = "CIFAR-10" if cifar10.is_official() else "images that are not the official CIFAR-10"
    if options.sample:
        images = "the sample of CIFAR-10"
    if getattr(options, "limit", None):
        images = f"{options.limit:,} training images of {images}"
    return "" if images == "CIFAR-10" else f"on {images}"


def read_result(path):
    """Return what `write_result` wrote, None if there is no such file."""
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text())
        result["settings"]["epochs"], result["finished"]
        return result
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not the result of a run: move it away") from error


def write_result(path, result):
    with replace_when_complete(path) as temporary:
        temporary.write_text(json.dumps(result, indent=2) + "\n")


def read_history(path, epochs=None):
    """Return the first `epochs` rows of a NAME.csv (all by default) as a list per column."""
    history = {"epoch": []}
    if path and path.exists():
        with open(path, newline="") as file:
            for row in list(csv.DictReader(file))[:epochs]:
                for column, value in row.items():
                    number = int(value) if column == "epoch" else float(value)
                    history.setdefault(column, []).append(number)
    if epochs and len(history["epoch"]) < epochs:
        raise UsageError(f"{path} lacks some of the {epochs} epochs that are done: can't resume")
    return history


def write_history(path, history):
    with replace_when_complete(path) as temporary, open(temporary, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(history)
        writer.writerows(zip(*history.values(), strict=True))


def operations_per_image(model):
    """Return the floating-point operations of a training step per image.

    Counts the multiplications and additions of convolutions and dense layers, which are nearly
    all: one product of matrices forward, one backward for the gradient of the weights and one for
    that of the inputs, where these are needed.
    """
    operations, trained_before = 0, False
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            product = 2 * np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:-1])
            operations += product * (1 + layer.trainable + trained_before)
            trained_before |= layer.trainable
    return float(operations)


def software():
    return {
        "python": platform.python_version(),
        **{package.__name__: package.__version__ for package in (keras, tf, np)},
    }


def hardware():
    processor = platform.processor() or platform.machine()
    with contextlib.suppress(OSError), open("/proc/cpuinfo") as file:
        names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
        processor = names[0] if names else processor
    devices = [device.name for device in tf.config.list_physical_devices("GPU")]
    return {"processor": processor, "cores": os.cpu_count(), "gpus": devices}


def save_final_model(model, result, path):
    """Save a model as HDF5, with the result of its training as an attribute of the file.

    Keras 3.15 takes the optimizer out of the model while it writes HDF5: a `.keras` file saved
    from the same model afterwards would silently load with RMSprop.
    """
    logging.getLogger("absl").setLevel(logging.ERROR)  # Keras warns that .h5 is its older format
    with replace_when_complete(path) as temporary:
        model.save(temporary)
        with h5py.File(temporary, "a") as file:
            file.attrs["result"] = json.dumps(result)


def load_final_model(path):
    """Load the model that finalize.py saved, and say how it was trained.

    Returns:
        `(model, result)`: a Keras model from float32 images (n, 32, 32, 3) in [0, 1] to class
        probabilities (n, 10), and the result of its training.

    Raises:
        UsageError: if there is no such file, or it is not such a model.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"there is no model {path}: `python finalize.py --sample` makes one")
    try:
        with h5py.File(path) as file:
            result = json.loads(file.attrs["result"])
        model = keras.saving.load_model(path, compile=False)
        if (model.input_shape, model.output_shape) != ((None, 32, 32, 3), (None, 10)):
            raise ValueError(f"it maps {model.input_shape} to {model.output_shape}")
    except Exception as error:  # a foreign file can raise nearly anything
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{path} is not a model that finalize.py saved: {reason}") from error
    print(
        f"Model: {path}, {result['settings']['experiment']}, {result['settings']['epochs']} epochs"
    )
    return model, result
