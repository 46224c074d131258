"""Two VGG blocks: baseline1 plus a block with 64 filters.

The second block sees the image at half the resolution, so its filters cover larger shapes.

Idea: Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556
Published test accuracy: 71.08 %
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=2)


EXPERIMENT = Experiment(define_model, epochs=100, published_accuracy=71.08)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
