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
        callback_states: for each callback a dict of numbers, texts and lists of arrays.
    """
    scalars = [{name: plain(value) for name, value in state.items()} for state in callback_states]
    with replace_when_complete(path) as temporary:
        model.save(temporary)
        with zipfile.ZipFile(temporary, "a") as archive:
            archive.writestr("run.json", json.dumps({**record, "callbacks": scalars}))
            for index, state in enumerate(callback_states):
                for name, value in state.items():
                    for number, array in enumerate(value if isinstance(value, list) else ()):
                        with archive.open(array_member(index, name, number), "w") as file:
                            np.save(file, array, allow_pickle=False)


def plain(value):
    """Return a number, a text, or how many arrays a list holds, as JSON can express it."""
    if isinstance(value, list):
        return {"arrays": len(value)}
    return value.item() if isinstance(value, np.generic) else value


def load_checkpoint(path):
    """Return the model, the record and the callbacks' states that `save_checkpoint` was given."""
    model = keras.saving.load_model(path)
    with zipfile.ZipFile(path) as archive:
        record = json.loads(archive.read("run.json"))
        states = record.pop("callbacks")
        for index, state in enumerate(states):
            for name, value in state.items():
                if isinstance(value, dict):
                    members = (array_member(index, name, k) for k in range(value["arrays"]))
                    state[name] = [read_array(archive, member) for member in members]
    return model, record, states


def read_array(archive, member):
    with archive.open(member) as file:
        return np.load(file, allow_pickle=False)


def array_member(index, name, number):
    return f"callbacks/{index}/{name}/{number}.npy"
