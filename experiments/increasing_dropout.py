"""Dropout that grows with depth: 20, 30, 40 % after the blocks, 50 % after the dense layer.

Changes only the rates of dropout. Deeper layers have more weights and more to memorize.
Stronger dropout learns more slowly: twice the epochs.

Idea: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html
Published test accuracy: 84.69 %
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3, dropout_rates=(0.2, 0.3, 0.4, 0.5))


EXPERIMENT = Experiment(define_model, epochs=200, published_accuracy=84.69)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
