"""Cyclical learning rate: baseline3 with a rate that rises from 0.001 to 0.006 and falls again.

High rates get the training out of where it is stuck, low ones let it settle. A cycle takes four
epochs, however many steps these have: 4 * 782 with all of CIFAR-10, 4 * 63 with its sample. The two
rates are Smith's for CIFAR-10.

Idea: Smith 2015, https://arxiv.org/abs/1506.01186
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg

import keras


@keras.saving.register_keras_serializable()  # so that checkpoints can be loaded
class TriangularCycles(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises and falls in straight lines, over and over.

    Args:
        lowest, highest: where it starts and ends, and where it turns.
        cycle: steps from lowest to lowest.
    """

    def __init__(self, lowest, highest, cycle):
        self.lowest, self.highest, self.cycle = lowest, highest, cycle

    def __call__(self, step):
        done = keras.ops.cast(step % self.cycle, "float32") / self.cycle
        return self.lowest + (self.highest - self.lowest) * (1 - abs(2 * done - 1))

    def get_config(self):
        return {"lowest": self.lowest, "highest": self.highest, "cycle": self.cycle}


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3)


def learning_rate(steps_per_epoch, epochs):
    """Return a schedule with a cycle of four epochs; it is the same for any number of them."""
    return TriangularCycles(0.001, 0.006, cycle=4 * steps_per_epoch)


EXPERIMENT = Experiment(define_model, epochs=100, learning_rate=learning_rate)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
