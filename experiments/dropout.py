"""Dropout: baseline3 with 20 % of the values set to zero after each block and the dense layer.

Every step drops other values, so no unit can rely on a few others: the network learns
features that help on their own, and overfits less.

Idea: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html
Published test accuracy: 83.45 %
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3, dropout_rates=(0.2, 0.2, 0.2, 0.2))


EXPERIMENT = Experiment(define_model, epochs=100, published_accuracy=83.45)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
