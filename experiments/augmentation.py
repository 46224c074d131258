"""Data augmentation: baseline3 on images that are flipped and shifted by up to 10 %.

Each epoch shows a new variant of every image, so there is less to memorize.

Idea: Krizhevsky et al. 2012, section 4.1, https://doi.org/10.1145/3065386
Published test accuracy: 84.47 %
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg

from keras import layers


def flip_and_shift():
    """Return layers that show an image flipped or not, and shifted, anew each time it is seen.

    Borders that a shift leaves empty repeat the pixels at the edge.
    """
    return [
        # In float32 always: bfloat16 would round the pixels.
        layers.RandomFlip("horizontal", dtype="float32"),
        layers.RandomTranslation(0.1, 0.1, fill_mode="nearest", dtype="float32"),
    ]


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3, preprocessing=flip_and_shift())


EXPERIMENT = Experiment(define_model, epochs=100, published_accuracy=84.47)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
