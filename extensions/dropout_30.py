"""More dropout: dropout with 30 % of the values set to zero, in place of 20 %.

Srivastava et al. use 20 to 50 % in hidden layers. The network memorizes less with every percent,
and learns more slowly: are 100 epochs enough?

Idea: Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3, dropout_rates=(0.3, 0.3, 0.3, 0.3))


EXPERIMENT = Experiment(define_model, epochs=100)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
