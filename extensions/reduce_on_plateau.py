"""Reduce on plateau: baseline3 with a learning rate that is divided by 10 when nothing gets better.

Nothing means the loss on images that are held out of the training, for ten epochs. To watch the
test set instead would be to choose by it, and its accuracy would promise too much; here it is used
once, at the end. The price: a tenth of the images is not trained on.

Idea: He et al. 2015, section 3.4, https://arxiv.org/abs/1512.03385
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.vgg import vgg

import keras


def define_model(input_shape=(32, 32, 3), classes=10):
    return vgg(input_shape, classes, blocks=3)


EXPERIMENT = Experiment(
    define_model,
    epochs=100,
    callbacks=(keras.callbacks.ReduceLROnPlateau(monitor="val_loss", factor=0.1, patience=10),),
    validation="holdout",
)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
