"""One VGG block: two 3x3 convolutions with 32 filters, then 2x2 max pooling.

Where every other experiment starts from. Watch the curves part: the network memorizes the training
images, and what it learns about them stops helping on the test images.

Idea: Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556
Published test accuracy: 67.07 %
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=1)


EXPERIMENT = Experiment(define_model, epochs=100, published_accuracy=67.07)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
