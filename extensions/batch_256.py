"""Larger batches: baseline3 with 256 images per step instead of 64, at the same learning rate.

Each step follows the mean gradient of more images, which is less noisy, but an epoch has only a
quarter of the steps. The noise may be what finds weights that do well on new images.

Idea: Keskar et al. 2016, https://arxiv.org/abs/1609.04836
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3)


EXPERIMENT = Experiment(define_model, epochs=100, batch_size=256)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
