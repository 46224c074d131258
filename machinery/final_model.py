"""The model that finalize.py saves: writing it, reading it back."""

import json
import logging
import os
import shutil
import zipfile
from argparse import Namespace
from datetime import datetime
from pathlib import Path

from data.dataset import CLASS_NAMES, MOST_IMAGE_SIZE, require_class_names
from machinery.errors import DamagedError, UsageError
from machinery.files import (
    MOST_JSON_BYTES,
    blame,
    dated,
    limited_memory,
    open_zip,
    read_member,
    reading,
    replace_when_complete,
)
from machinery.loading import load_model, require_texts
from machinery.options import SHIPPED, command, own_data
from machinery.records import require_result

import h5py
import keras
import numpy as np

MOST_BYTES = 2_000_000_000
MOST_LISTED = 20
EARLIER = "earlier"  # the folder, beside a model, of those that were there before
RESULT = "result.json"  # in a `.keras` file


def save_final_model(model, result, path):
    """Save a model, with the result of its training in the same file.

    With its optimizer, unless that or its learning rate is a class of an experiment's: plain Keras,
    in a notebook for example, could not load it.

    Keras 3.15 takes the optimizer out of the model while it writes HDF5: a `.keras` file saved
    from the same model afterwards would silently load with RMSprop.

    Args:
        path: ends in `.h5`, or in `.keras`, Keras's newer format.

    Raises:
        UsageError: if some weights are no numbers: the training has failed in its last steps.
    """
    if not has_numbers(model):
        raise UsageError(
            "some of the weights are no numbers any more: a learning rate that is too high does "
            f"that, try a tenth of it. {path} is not written"
        )
    if model.compiled:
        optimizer = json.dumps(keras.saving.serialize_keras_object(model.optimizer))
        if '"registered_name": "' in optimizer:  # null in what is Keras's own
            model = keras.Model(model.inputs, model.outputs)
    logging.getLogger("absl").setLevel(logging.ERROR)  # Keras warns that .h5 is its older format
    with replace_when_complete(path) as temporary:
        model.save(temporary)
        if temporary.suffix == ".keras":
            with zipfile.ZipFile(temporary, "a") as archive:
                archive.writestr(RESULT, json.dumps(result))
        else:
            with h5py.File(temporary, "a") as file:
                file.attrs["result"] = json.dumps(result)


def keep_earlier_model(path):
    """Copy a model that is about to be replaced to a folder of earlier ones; return where to.

    A copy, so that there is a model at `path` all the time.
    """
    when = datetime.fromtimestamp(path.stat().st_mtime).isoformat(timespec="seconds")
    target = dated(path, when, path.parent / EARLIER)
    with replace_when_complete(target) as temporary:
        shutil.copyfile(path, temporary)
    return target


def read_result_of(path, file):
    """Return the result of its training that a model's open file has in it, a JSON text.

    Raises:
        ValueError: if there is none.
    """
    if path.suffix == ".keras":
        with open_zip(file) as archive:
            if RESULT in archive.namelist():
                return read_member(archive, RESULT, MOST_JSON_BYTES)
    else:
        with h5py.File(file) as archive:
            require_texts(archive)
            if "result" in archive.attrs:
                return archive.attrs["result"]
    raise ValueError("it is not a model that finalize.py saved")


def read_training(path):
    """Return how the model that finalize.py saved was trained, without loading it.

    Returns:
        The result of its training, whose `dataset` has the `class_names`.

    Raises:
        UsageError: if there is no such file, or it is not such a model.
    """
    path = Path(path)
    if not path.exists():
        makes_it = f"{command('finalize.py', Namespace(model=str(path)))} --sample"
        raise UsageError(f"there is no model {path}: `{makes_it}` makes one")
    with reading(path, MOST_BYTES) as file:
        result = json.loads(read_result_of(path, file))
        require_result(result)
        class_names = result["dataset"].setdefault("class_names", list(CLASS_NAMES))
        require_class_names(class_names)
    return result


def load_final_model(path):
    """Load the model that finalize.py saved, and say how it was trained.

    Returns:
        `(model, result)`: a Keras model from float32 images (n, size, size, 3) in [0, 1] to class
        probabilities (n, classes), and the result of its training, as `read_training` returns it.

    Raises:
        UsageError: if there is no such file, or it is not such a model. No code in it is run.
    """
    path = Path(path)
    result = read_training(path)
    with blame(path):
        model = load_model(path, compile=False)
        size, classes = model.input_shape[1], len(result["dataset"]["class_names"])
        if not isinstance(size, int) or size > MOST_IMAGE_SIZE:
            raise ValueError(f"its images are not of up to {MOST_IMAGE_SIZE} pixels, but {size}")
        if (model.input_shape, model.output_shape) != ((None, size, size, 3), (None, classes)):
            raise ValueError(
                f"it maps {model.input_shape} to {model.output_shape}, for {classes} classes"
            )
        if not has_numbers(model):
            raise ValueError("some of its weights are no numbers")
        black = np.zeros((1, size, size, 3), np.float32)
        with limited_memory():
            require_probabilities(np.asarray(model(black, training=False)), path)
    epochs = result.get("epochs_trained", result["settings"]["epochs"])
    shipped = ", shipped with this project" if SHIPPED in path.absolute().parents else ""
    trained = "1 epoch" if epochs == 1 else f"{epochs} epochs"
    print(f"Model: {path}, {result['settings']['experiment']}, {trained}{shipped}")
    return model, result


def has_numbers(model):
    """Tell whether all weights of a model are finite."""
    return all(np.isfinite(weights).all() for weights in model.get_weights())


def require_probabilities(answers, path):
    """Refuse answers of the model at `path`, floats (..., classes), that are no probabilities.

    Weights that are numbers can be so large that what is computed with them is none any more.

    Raises:
        DamagedError: if they are not from 0 to 1, with 1 as their sum.
    """
    if not ((answers >= 0).all() and (abs(answers.sum(axis=-1) - 1) < 0.1).all()):  # bfloat16
        raise DamagedError(f"{path}: damaged or foreign (what it puts out is no probabilities)")


def require_deer(class_names, path):
    """Refuse the photo that ships with the project for a model that knows no deer.

    Raises:
        UsageError: says what the model at `path` knows.
    """
    if "deer" not in class_names:
        raise UsageError(f"{path} knows {listed(class_names)}: name a photo of one of them")


def prediction(options, class_names):
    """Return the command that shows what a model says to the deer, or to the user's own pictures.

    "" if it knows no deer, and the pictures are not in a folder.
    """
    if "deer" in class_names:
        return command("predict.py", options)
    own = own_data(options)
    return command("predict.py", options, own) if os.path.isdir(own) else ""


def listed(class_names):
    """Return the names of classes in words, of many the first ones and how many there are more."""
    more = len(class_names) - MOST_LISTED
    return ", ".join(class_names[:MOST_LISTED]) + (f" and {more:,} more" if more > 0 else "")
