"""Dropout and augmentation together: the dropout of dropout, the images of augmentation.

One hides parts of the network, the other never shows the same image twice; they add up.

Published test accuracy: 85.88 %
"""

from harness import run_test_harness
from models.vgg import vgg

EPOCHS = 200
PUBLISHED_ACCURACY = 85.88


def define_model():
    return vgg(blocks=3, dropout_rates=(0.2, 0.2, 0.2, 0.2), augmentation=True)


if __name__ == "__main__":
    run_test_harness(__file__, define_model, EPOCHS, PUBLISHED_ACCURACY)
