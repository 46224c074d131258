"""Increasing dropout, augmentation, and batch normalization: the best of the nine.

Batch normalization after every convolution and the dense layer keeps the values in a range
where learning is quick and stable, so stronger dropout can be afforded.

Idea: Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167
Published test accuracy: 88.62 %
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from experiments.augmentation import flip_and_shift
from harness import Experiment, run_test_harness
from models.vgg import vgg


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(
        input_shape,
        classes,
        blocks=3,
        dropout_rates=(0.2, 0.3, 0.4, 0.5),
        batch_norm=True,
        preprocessing=flip_and_shift(),
    )


EXPERIMENT = Experiment(define_model, epochs=400, published_accuracy=88.62)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
