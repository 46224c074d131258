"""Centering: baseline3 on pixels whose mean is subtracted, for each colour.

Pixels in [0, 1] are never negative, so they push the weights of a filter up or down together, and
training zigzags. The subtraction is a layer of the model: the saved model takes images in [0, 1],
like any other.

Idea: LeCun et al. 1998, "Efficient BackProp", section 4.3, https://doi.org/10.1007/3-540-49430-8_2
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg

from keras import layers

MEANS = 125.307, 122.950, 113.865  # of the training images' red, green and blue, in 0..255


def define_model(input_shape=(32, 32, 3), classes=10):
    # In float32: rounding large values to bfloat16 before the subtraction would lose small ones.
    scaling = layers.Normalization(
        mean=[mean / 255 for mean in MEANS], variance=[1, 1, 1], dtype="float32"
    )
    return vgg(input_shape, classes, blocks=3, preprocessing=[scaling])


EXPERIMENT = Experiment(define_model, epochs=100)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
