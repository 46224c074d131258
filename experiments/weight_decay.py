"""Weight decay: baseline3 with an L2 penalty of 0.001 on the weights, added to the loss.

Large weights cost, so the network prefers smoother functions of its input. The loss starts
higher than in the other experiments: it contains the penalty.

Idea: Krogh and Hertz 1991,
https://papers.nips.cc/paper/1991/hash/8eefcfdf5990e441f0fb6f3fad709e21-Abstract.html
Published test accuracy: 72.55 %
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3, weight_decay=0.001)


EXPERIMENT = Experiment(define_model, epochs=100, published_accuracy=72.55)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
