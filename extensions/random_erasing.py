"""Random erasing: augmentation, and a rectangle of noise over every second image or so.

A network that tells a dog by its ears alone has to learn the rest when they are hidden. It is
dropout for pixels that belong together.

Idea: Zhong et al. 2017, https://arxiv.org/abs/1708.04896
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from experiments.augmentation import flip_and_shift
from harness import Experiment, run_test_harness
from models.vgg import vgg

from keras import layers


def define_model(input_shape=(32, 32, 3), classes=10):
    # A probability of 1/2, for images in [0, 1]; in float32, as bfloat16 would round the pixels.
    erase = layers.RandomErasing(factor=(0.5, 0.5), value_range=(0, 1), dtype="float32")
    return vgg(input_shape, classes, blocks=3, preprocessing=[*flip_and_shift(), erase])


EXPERIMENT = Experiment(define_model, epochs=100)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
