"""Fine-tuning: transfer_vgg16 with nothing frozen, and a hundredth of the learning rate.

The features adapt to our small images. Steps as large as those of transfer_vgg16 would destroy them
before the new layers know what to do with them. An epoch takes longer: all layers learn.

Idea: Yosinski et al. 2014, https://arxiv.org/abs/1411.1792
Published, with two larger dense layers, on held-out training images: about 80 %,
https://github.com/royhuang9/transfer_learning
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from extensions.transfer_vgg16 import run_with_weights
from harness import Experiment
from models.pretrained import pretrained_vgg16


def define_model(input_shape=(32, 32, 3), classes=10, weights="imagenet"):
    return pretrained_vgg16(input_shape, classes, weights, trainable=True, learning_rate=0.00001)


EXPERIMENT = Experiment(define_model, epochs=20)


if __name__ == "__main__":
    run_with_weights(__file__, EXPERIMENT)
