"""Checkpoints: all that it takes to go on with a run, in one file.

A `.keras` archive with two kinds of members more, which Keras does not look at: `run.json`, and the
arrays that callbacks keep (Keras's EarlyStopping the best weights, for example).
"""

import json
import zipfile

from machinery.records import replace_when_complete

import keras
import numpy as np


def save_checkpoint(path, model, record, callback_states):
    """Write model, optimizer and what is to be known of the run, all or nothing.

    Args:
        path: ends in `.keras`.
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


def load_checkpoint(path):
    """Return the model, the record and the callbacks' states that `save_checkpoint` was given.

    Tuples come back as lists.
    """
    model = keras.saving.load_model(path)
    with zipfile.ZipFile(path) as archive:
        record = json.loads(archive.read("run.json"))
        states = decode(record.pop("callbacks"), archive)
    return model, record, states


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


def decode(value, archive):
    """Return what `encode` was given, with the arrays from the archive."""
    if isinstance(value, list):
        return [decode(item, archive) for item in value]
    if not isinstance(value, dict):
        return value
    if "dict" in value:
        return {name: decode(item, archive) for name, item in value["dict"].items()}
    with archive.open(f"arrays/{value['array']}.npy") as file:
        return np.load(file, allow_pickle=False)
