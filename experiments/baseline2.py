"""Two VGG blocks: baseline1 plus a block with 64 filters.

The second block sees the image at half the resolution, so its filters cover larger shapes.

Idea: Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556
Published test accuracy: 71.08 %
"""

from harness import run_test_harness
from models.vgg import vgg

EPOCHS = 100
PUBLISHED_ACCURACY = 71.08


def define_model():
    return vgg(blocks=2)


if __name__ == "__main__":
    run_test_harness(__file__, define_model, EPOCHS, PUBLISHED_ACCURACY)
