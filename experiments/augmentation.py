"""Data augmentation: baseline3 on images that are mirrored and shifted by up to 10 %.

Each epoch shows a new variant of every image, so there is less to learn by heart.

Idea: Krizhevsky et al. 2012, section 4.1, https://doi.org/10.1145/3065386
Published test accuracy: 84.47 %
"""

from harness import run_test_harness
from models.vgg import vgg

EPOCHS = 100
PUBLISHED_ACCURACY = 84.47


def define_model():
    return vgg(blocks=3, augmentation=True)


if __name__ == "__main__":
    run_test_harness(__file__, define_model, EPOCHS, PUBLISHED_ACCURACY)
