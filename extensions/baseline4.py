"""Four VGG blocks: baseline3 plus a block with 256 filters.

The first thing to try when a network is too weak. But baseline3 memorizes its training images
already: can more filters help, or do they memorize sooner?

Idea: Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=4)


EXPERIMENT = Experiment(define_model, epochs=100)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
