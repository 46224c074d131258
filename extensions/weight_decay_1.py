"""Much more weight decay: weight_decay with an L2 penalty of 0.1, a hundred times as much.

Too much of a good thing? Look at the training accuracy, not only at the gap: two curves that stay
together at the bottom have hardly learned anything.

Idea: Krogh and Hertz 1991,
https://papers.nips.cc/paper/1991/hash/8eefcfdf5990e441f0fb6f3fad709e21-Abstract.html
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3, weight_decay=0.1)


EXPERIMENT = Experiment(define_model, epochs=100)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
