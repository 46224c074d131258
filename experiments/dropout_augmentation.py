"""Dropout and augmentation together: the dropout of dropout, the images of augmentation.

One hides parts of the network, the other never shows the same image twice. Together they learn more
slowly, and get further with time.

Published test accuracy: 85.88 %
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
        dropout_rates=(0.2, 0.2, 0.2, 0.2),
        preprocessing=flip_and_shift(),
    )


EXPERIMENT = Experiment(define_model, epochs=200, published_accuracy=85.88)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
