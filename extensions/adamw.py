"""AdamW: adam with weight decay that is decoupled from the gradient.

A penalty in the loss, as in weight_decay, goes through Adam's division and hardly reaches weights
with large gradients. Here each step shrinks every weight by the same factor instead, 1 minus
learning rate times weight decay. 0.004 is what Keras takes by default.

Idea: Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg

import keras


def define_model(input_shape=(32, 32, 3), classes=10):
    optimizer = keras.optimizers.AdamW(learning_rate=0.001, weight_decay=0.004)
    return vgg(input_shape, classes, blocks=3, optimizer=optimizer)


EXPERIMENT = Experiment(define_model, epochs=100)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
