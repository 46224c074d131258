"""Larger batches, larger steps: batch_256 with four times the learning rate, 0.004.

A quarter of the steps, each four times as long, should get about as far. Is this baseline3 again?
Goyal et al. warm the learning rate up first, which much larger batches need; that is left out.

Idea: Goyal et al. 2017, section 2.1, https://arxiv.org/abs/1706.02677
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg

import keras


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(
        input_shape,
        classes,
        blocks=3,
        optimizer=keras.optimizers.SGD(learning_rate=0.004, momentum=0.9),
    )


EXPERIMENT = Experiment(define_model, epochs=100, batch_size=256)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
