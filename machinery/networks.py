"""Final models that many users ask at once."""

import os
import tempfile
import threading
from pathlib import Path
from typing import NamedTuple

from data.image import load_image
from harness import prep_pixels
from machinery.errors import UsageError
from machinery.figures import save_figure
from machinery.files import blame
from machinery.final_model import load_final_model, read_training, require_probabilities
from machinery.grad_cam import draw_heat_maps, draw_seen, explain_answer

import tensorflow as tf
from matplotlib.figure import Figure
from PIL import Image

SUFFIXES = ".h5", ".keras"


class Answer(NamedTuple):
    """What a network says to a photo.

    Fields:
        told: the likeliest class, in words, and what else there is to say.
        probabilities: of all classes, by their names.
        picture: what the network sees, and which places speak for the two likeliest classes, a
            Pillow image.
    """

    told: str
    probabilities: dict
    picture: Image.Image


def find_models(folders, first):
    """Return the paths of final models, by the names that users choose among.

    Whatever is called final_model is one of them, even if it can't be read: who chooses it is told
    what is wrong with it.

    Args:
        folders: where to look for them.
        first: the path of one, wherever it is, that is named first.

    Raises:
        UsageError: if that one can't be read, or is no final model.
    """
    first = Path(first)
    found = {name_of(first, read_training(first)): first}
    for path in (path for folder in folders for path in sorted(Path(folder).glob("[!.]*"))):
        known = set(map(os.path.realpath, found.values()))
        if path.suffix in SUFFIXES and os.path.realpath(path) not in known:
            try:
                found.setdefault(name_of(path, read_training(path)), path)
            except UsageError:
                if path.name.startswith("final_model"):
                    found.setdefault(name_of(path), path)
    return found


def name_of(path, training=None):
    """Return what users call a model: its file, the folder of that, and its experiment."""
    name = f"{path.parent.name}/{path.name}".removeprefix("/")
    return f"{name} ({training['settings']['experiment']})" if training else name


class Networks:
    """Final models to choose from, each of which is loaded when it is asked for the first time.

    Args:
        paths: where they are, by name.
    """

    def __init__(self, paths):
        self.paths, self.loaded, self.lock = paths, {}, threading.Lock()

    def ask(self, name, photo):
        """Ask one of them what is on a photo.

        One question after the other: neither loading with Keras nor drawing with Matplotlib is
        safe in several threads, and so there is never more than one large photo in memory.

        Args:
            name: of the network.
            photo: path of an image file.

        Returns:
            An `Answer`.

        Raises:
            UsageError: if there is no such network, or it or the photo can't be read.
        """
        with self.lock:
            if name not in list(self.paths):  # a browser can send anything, a list too
                raise UsageError("there is no such model here: choose one from the list")
            if name not in self.loaded:
                self.loaded[name] = Network(self.paths[name])
            return self.loaded[name].ask(photo)


class Network:
    """A final model that is asked again and again.

    Args:
        path: where it is.

    Raises:
        UsageError: if it can't be loaded, or explained.
    """

    def __init__(self, path):
        model, training = load_final_model(path)
        self.path = path
        self.class_names, self.remark = training["dataset"]["class_names"], training["remark"]
        self.size = model.input_shape[1]

        def explain(images):
            _, blocks, *answer = explain_answer(model, images)
            self.layer_name = blocks[-1][0].name
            return answer

        # Traced here, once and for all: a model can be explained only once.
        images = tf.TensorSpec((1, self.size, self.size, 3), tf.float32)
        with blame(path):
            traced = tf.function(explain, [images], autograph=False)
            self.explain = traced.get_concrete_function()

    def ask(self, path):
        """Return the `Answer` to a photo; see `Networks.ask`."""
        photo = load_image(path, self.size)
        answer = self.explain(tf.constant(*prep_pixels(photo[None])))
        probabilities, labels, heat_maps = (tensor.numpy() for tensor in answer)
        require_probabilities(probabilities, self.path)
        names = [f"{self.class_names[i]}, {100 * probabilities[i]:.1f} %" for i in labels]
        told = f"{names[0]}. Trained {self.remark}: expect mistakes." if self.remark else names[0]

        figure = Figure(figsize=(9, 3), layout="constrained")  # not pyplot's: it would be kept
        seen, *cams = figure.subplots(1, 3)
        draw_seen(seen, photo)
        draw_heat_maps(cams, photo, heat_maps, names, self.layer_name)
        with tempfile.TemporaryDirectory() as folder:
            save_figure(figure, Path(folder, "answer.png"))
            with Image.open(Path(folder, "answer.png")) as image:
                picture = image.convert("RGB")
        by_name = dict(zip(self.class_names, map(float, probabilities), strict=True))
        return Answer(told, by_name, picture)
