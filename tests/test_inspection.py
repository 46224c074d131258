from conftest import tiny_network
from machinery.inspection import name_of_loss, operations_per_image
from models.vgg import vgg

import keras


def sparse():
    """A network with a penalty for what a layer puts out."""
    layer = keras.layers.Dense(10, activation="softmax", activity_regularizer="l1")
    model = keras.Sequential([keras.Input((8,)), layer])
    model.compile(loss="categorical_crossentropy")
    return model


def test_loss_is_called_what_it_is():
    assert name_of_loss(vgg(blocks=1)) == "cross-entropy"
    told = "cross-entropy + penalty for weights (0.001)"
    assert name_of_loss(vgg(blocks=1, weight_decay=0.001)) == told
    assert name_of_loss(sparse()) == "cross-entropy + penalties"
    smoothed = keras.losses.CategoricalCrossentropy(label_smoothing=0.2)
    assert name_of_loss(tiny_network(loss=smoothed)) == "cross-entropy to labels smoothed by 0.2"
    assert name_of_loss(tiny_network(loss="mse")) == "loss"
    assert name_of_loss(tiny_network(loss="categorical_focal_crossentropy")) == "loss"


def test_loss_of_a_model_within_a_model_is_called_the_same():
    for inner in (vgg(blocks=1, weight_decay=0.01), sparse()):
        outer = keras.Sequential([keras.Input(inner.input_shape[1:]), inner])
        outer.compile(loss="categorical_crossentropy")
        assert name_of_loss(outer) == name_of_loss(inner)


def test_operations_are_those_counted_by_hand():
    # Multiplications of one image in baseline1: 32 x 32 pixels, 9 neighbours, channels in and out.
    first, second = 1024 * 9 * 3 * 32, 1024 * 9 * 32 * 32
    dense = 16 * 16 * 32 * 128 + 128 * 10
    expected = 2 * (2 * first + 3 * (second + dense))
    assert operations_per_image(vgg(blocks=1)) == expected


def test_operations_of_a_model_within_a_model_count():
    inner = vgg(blocks=1)
    outer = keras.Sequential([keras.Input((32, 32, 3)), inner])
    assert operations_per_image(outer) == operations_per_image(inner)


def test_operations_of_fixed_layers_are_forward_only():
    model = vgg(blocks=1)
    model.layers[1].trainable = False
    first, second = 1024 * 9 * 3 * 32, 1024 * 9 * 32 * 32
    dense = 16 * 16 * 32 * 128 + 128 * 10
    assert operations_per_image(model) == 2 * (first + 2 * second + 3 * dense)
