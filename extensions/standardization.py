"""Standardization: centering, and the pixels divided by their standard deviation, for each colour.

All inputs of the network then have mean 0 and variance 1, a scale that He initialization keeps up
from layer to layer.

Idea: LeCun et al. 1998, "Efficient BackProp", section 4.3, https://doi.org/10.1007/3-540-49430-8_2
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg

from keras import layers

MEANS = 125.307, 122.950, 113.865  # of the training images' red, green and blue, in 0..255
DEVIATIONS = 62.993, 62.089, 66.705


def define_model(input_shape=(32, 32, 3), classes=10):
    # In float32: rounding large values to bfloat16 before the subtraction would lose small ones.
    scaling = layers.Normalization(
        mean=[mean / 255 for mean in MEANS],
        variance=[(deviation / 255) ** 2 for deviation in DEVIATIONS],
        dtype="float32",
    )
    return vgg(input_shape, classes, blocks=3, preprocessing=[scaling])


EXPERIMENT = Experiment(define_model, epochs=100)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
