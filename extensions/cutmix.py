"""CutMix: augmentation, and a rectangle of each image is cut out of another, and so is its label.

An image of which a quarter shows a frog is labelled a quarter frog. No part of an image suffices
any more, and the network learns not to be too sure. Its training accuracy says little, as half
frog and half deer is right only if the larger half is named.

Idea: Yun et al. 2019, https://arxiv.org/abs/1905.04899
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from experiments.augmentation import flip_and_shift
from harness import Experiment, run_test_harness
from models.vgg import vgg

from keras import layers


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3, preprocessing=flip_and_shift())


def cut_and_mix(images, labels, indices, epoch, random):
    """Give each image of a batch a rectangle of another, and its share of the label.

    Args:
        images, labels, indices, epoch, random: see `data.batches.TrainingBatches`.

    Returns:
        Images and labels of the same shapes.
    """
    # A factor of 1: rectangles of all sizes are equally likely, as in the paper.
    mix = layers.CutMix(factor=(1, 1), seed=int(random.integers(2**31)), dtype="float32")
    mixed = mix({"images": images, "labels": labels}, training=True)
    return mixed["images"], mixed["labels"]


EXPERIMENT = Experiment(define_model, epochs=100, augment=cut_and_mix)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
