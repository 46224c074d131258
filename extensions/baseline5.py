"""Five VGG blocks: baseline4 plus a block with 512 filters.

As deep as it goes: five poolings halve 32 pixels to 16, 8, 4, 2 and 1. One pixel with 512 values is
all that the dense layer sees, and a sixth block would have nothing left to pool.

Idea: Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=5)


EXPERIMENT = Experiment(define_model, epochs=100)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
