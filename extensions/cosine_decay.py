"""Cosine decay: learning_rate_01 with a rate that rises to 0.01, then falls along a cosine to 0.

Large steps at first, small ones to settle at the end. The first steps of all are small, too: new
weights have large gradients. Both parts are measured by the length of the whole training, so
`--epochs 10` shows them as well as 100 epochs do.

Idea: Loshchilov and Hutter 2016, https://arxiv.org/abs/1608.03983
Warm-up: Goyal et al. 2017, section 2.2, https://arxiv.org/abs/1706.02677
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg

import keras


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3)


def learning_rate(steps_per_epoch, epochs):
    """Return a schedule that warms up over a twentieth of all steps, and ends at 0."""
    steps = steps_per_epoch * epochs
    warmup = steps // 20
    return keras.optimizers.schedules.CosineDecay(
        0.0, warmup_target=0.01, warmup_steps=warmup, decay_steps=steps - warmup
    )


EXPERIMENT = Experiment(define_model, epochs=100, learning_rate=learning_rate)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
