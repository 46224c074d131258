"""Cyclical learning rate with Adam: adam with the cycles of cyclical_learning_rate.

Adam's steps have another size, so the rates are others, too: from a quarter of adam's 0.001, which
is Smith's rule of thumb, up to 0.001. A reader of the tutorial asked for this one.

Idea: Smith 2015, https://arxiv.org/abs/1506.01186
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from extensions.cyclical_learning_rate import TriangularCycles
from harness import Experiment, run_test_harness
from models.vgg import vgg

import keras


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3, optimizer=keras.optimizers.Adam())


def learning_rate(steps_per_epoch, epochs):
    return TriangularCycles(0.00025, 0.001, cycle=4 * steps_per_epoch)


EXPERIMENT = Experiment(define_model, epochs=100, learning_rate=learning_rate)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
