"""Adam: baseline3 with another optimizer, which gives each weight a step size of its own.

It divides the gradient of each weight by its recent size, so weights with small gradients learn as
fast as those with large ones. The learning rate is 0.001 as before, but does not mean the same.

Idea: Kingma and Ba 2014, https://arxiv.org/abs/1412.6980
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg

import keras


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3, optimizer=keras.optimizers.Adam(learning_rate=0.001))


EXPERIMENT = Experiment(define_model, epochs=100)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
