"""Early stopping: baseline3, until the loss on held-out images has not fallen for ten epochs.

The weights of the best epoch are restored. What a network learns last helps least on new images, so
stopping early saves time and prevents overfitting at once, though accuracy may go on rising while
the loss does, too. As in reduce_on_plateau, a tenth of the training images decides, and the test
set is used once, at the end.

Idea: Prechelt 1998, "Early Stopping - But When?", https://doi.org/10.1007/3-540-49430-8_3
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
    callbacks=(
        keras.callbacks.EarlyStopping(monitor="val_loss", patience=10, restore_best_weights=True),
    ),
    validation="holdout",
)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
