"""Transfer learning from CIFAR-10: the features of the shipped network, and a new last layer.

For folders of your own with a few dozen pictures, too few to learn from them what an edge is. The
speed run's network has learned that, and more, from 50,000 others. Its first two blocks are frozen;
only a dense layer with a softmax learns, from how strong each feature is on average. The third
block may know more about CIFAR-10's ten classes than about pictures: it is left out. On CIFAR-10
itself this shows nothing: the features have seen its images.

    python extensions/transfer_shipped.py --data FOLDER

Idea: Yosinski et al. 2014, https://arxiv.org/abs/1411.1792
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_test_harness
from models.pretrained import shipped_features

import keras
from keras import layers


def define_model(input_shape=(32, 32, 3), classes=10):
    inputs = keras.Input(input_shape)
    x = layers.GlobalAveragePooling2D()(shipped_features(inputs))
    outputs = layers.Dense(classes, activation="softmax", dtype="float32")(x)
    model = keras.Model(inputs, outputs)
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    return model


EXPERIMENT = Experiment(define_model, epochs=100, batch_size=16)


if __name__ == "__main__":
    run_test_harness(__file__, EXPERIMENT)
