"""Three VGG blocks: baseline2 plus a block with 128 filters.

The best of the plain networks, and the one that the following experiments improve on. It still
overfits: the training accuracy pulls away from the test accuracy.

Idea: Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556
Published test accuracy: 73.50 %
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3)


EXPERIMENT = Experiment(define_model, epochs=100, published_accuracy=73.50)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
