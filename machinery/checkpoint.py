"""Checkpoints: all that it takes to go on with a run, in one file.

A `.keras` archive with two kinds of members more, which Keras does not look at: `run.json`, and the
arrays that callbacks keep (Keras's EarlyStopping the best weights, for example).
"""

import itertools
import json
import os
import zipfile

from machinery.files import (
    blame,
    open_zip,
    read_array,
    reading,
    replace_when_complete,
    require_member_sizes,
)
from machinery.loading import load_model

import numpy as np

MOST_BYTES = 2_000_000_000


def save_checkpoint(path, path_before, model, record, callback_states):
    """Write model, optimizer and what is to be known of the run, all or nothing.

    The checkpoint before is kept, in case this one gets damaged later.

    Args:
        path: ends in `.keras`.
        path_before: where the checkpoint goes that is at `path`, once the new one can be read.
        model: a compiled `keras.Model`.
        record: what JSON can express.
        callback_states: for each callback a dict, made of numbers, texts, arrays, lists and dicts.
    """
    arrays = []
    content = {**record, "callbacks": encode(callback_states, arrays)}
    with replace_when_complete(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr("run.json", json.dumps(content))
            for number, array in enumerate(arrays):
                with archive.open(f"arrays/{number}.npy", "w") as file:
                    np.save(file, array, allow_pickle=False)
        read_members(temporary)
        if path.exists():
            os.replace(path, path_before)


def load_checkpoint(path):
    """Return the model, the record and the callbacks' states that `save_checkpoint` was given.

    Tuples come back as lists.

    Raises:
        UsageError: if there is no checkpoint, or it is damaged or foreign. No code in it is run.
    """
    record, states = read_members(path)
    with blame(path):
        return load_model(path), record, states


def read_members(path):
    """Return what is to be known of a run, and its callbacks' states; check all other members."""
    with reading(path, MOST_BYTES) as file, open_zip(file) as archive:
        require_member_sizes(archive, MOST_BYTES)
        if damaged := archive.testzip():
            raise ValueError(f"its member {damaged} is damaged")
        record = json.loads(archive.read("run.json"))
        return record, decode(record.pop("callbacks"), archive, itertools.count())


def encode(value, arrays):
    """Return what JSON can express; arrays go into a list, and their place in it stays."""
    if isinstance(value, np.ndarray):
        arrays.append(value)
        return {"array": len(arrays) - 1}
    if isinstance(value, dict):
        return {"dict": {name: encode(item, arrays) for name, item in value.items()}}
    if isinstance(value, list | tuple):
        return [encode(item, arrays) for item in value]
    return value.item() if isinstance(value, np.generic) else value


def decode(value, archive, numbers):
    """Return what `encode` was given, with the arrays from the archive.

    Args:
        numbers: of the arrays, an iterator: `encode` has counted them, so each is read once.
    """
    if isinstance(value, list):
        return [decode(item, archive, numbers) for item in value]
    if not isinstance(value, dict):
        return value
    if "dict" in value:
        return {name: decode(item, archive, numbers) for name, item in value["dict"].items()}
    if value["array"] != next(numbers):
        raise ValueError("its arrays are not in order")
    with archive.open(f"arrays/{value['array']}.npy") as file:
        return read_array(file)
