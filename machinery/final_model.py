"""The model that finalize.py saves: writing it, reading it back."""

import json
import logging
from pathlib import Path

from machinery.errors import UsageError
from machinery.options import command
from machinery.records import replace_when_complete

import h5py
import keras


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
        raise UsageError(f"there is no model {path}: `{command('finalize.py')} --sample` makes one")
    try:
        with h5py.File(path) as file:
            result = json.loads(file.attrs["result"])
        model = keras.saving.load_model(path, compile=False)
        if (model.input_shape, model.output_shape) != ((None, 32, 32, 3), (None, 10)):
            raise ValueError(f"it maps {model.input_shape} to {model.output_shape}")
    except Exception as error:  # a foreign file can raise nearly anything
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{path} is not a model that finalize.py saved: {reason}") from error
    epochs = result.get("epochs_trained", result["settings"]["epochs"])
    print(f"Model: {path}, {result['settings']['experiment']}, {epochs} epochs")
    return model, result
