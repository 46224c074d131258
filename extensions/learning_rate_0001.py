"""A lower learning rate: baseline3 with 0.0001, a tenth of it.

Smaller steps learn more slowly. Look for whether the test loss turns up later, too, or not at all
within the 100 epochs: a low learning rate can look like a cure for overfitting.

Idea: Bengio 2012, section 3.1, https://arxiv.org/abs/1206.5533
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
        optimizer=keras.optimizers.SGD(learning_rate=0.0001, momentum=0.9),
    )


EXPERIMENT = Experiment(define_model, epochs=100)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
