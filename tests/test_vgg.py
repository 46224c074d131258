from machinery.errors import UsageError
from models.vgg import vgg, vgg_block

import keras
import numpy as np
import pytest
from keras import layers


def kinds(model):
    return [type(layer).__name__ for layer in model.layers[1:]]


def test_a_block_is_two_convolutions_and_a_pooling_that_halves_the_size():
    inputs = keras.Input((16, 12, 5))
    model = keras.Model(inputs, vgg_block(inputs, filters=7))
    assert kinds(model) == ["Conv2D", "Conv2D", "MaxPooling2D"]
    assert model.output_shape == (None, 8, 6, 7)
    for layer in model.layers[1:3]:
        assert (layer.kernel_size, layer.padding, layer.filters) == ((3, 3), "same", 7)
        assert layer.activation is keras.activations.relu
        assert isinstance(layer.kernel_initializer, keras.initializers.HeUniform)


@pytest.mark.parametrize("blocks", [1, 2, 3, 4])
def test_filters_double_from_block_to_block(blocks):
    model = vgg(blocks=blocks)
    filters = [layer.filters for layer in model.layers if isinstance(layer, layers.Conv2D)]
    assert filters == [32 * 2**block for block in range(blocks) for _ in range(2)]
    assert (model.input_shape, model.output_shape) == ((None, 32, 32, 3), (None, 10))


def test_options_add_layers_in_their_places():
    model = vgg(blocks=1, dropout_rates=(0.1, 0.6), batch_norm=True)
    assert kinds(model) == [
        *("Conv2D", "BatchNormalization") * 2, "MaxPooling2D", "Dropout",
        "Flatten", "Dense", "BatchNormalization", "Dropout", "Dense",
    ]  # fmt: skip


def test_wrong_number_of_dropout_rates_is_refused():
    with pytest.raises(ValueError, match="need 4 dropout rates, got 2"):
        vgg(blocks=3, dropout_rates=(0.2, 0.5))


def test_optimizer_of_ones_own():
    assert isinstance(
        vgg(blocks=1, optimizer=keras.optimizers.Adam()).optimizer, keras.optimizers.Adam
    )


def test_probabilities_are_float32_where_the_rest_computes_in_bfloat16(photos):
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = vgg(blocks=1)
    assert model.layers[1].compute_dtype == "bfloat16"
    probabilities = model(photos).numpy()
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_input_and_classes_of_ones_own():
    model = vgg((16, 24, 3), 5, blocks=3)
    assert (model.input_shape, model.output_shape) == ((None, 16, 24, 3), (None, 5))


def test_images_that_are_too_small_are_refused():
    with pytest.raises(UsageError, match="4 blocks need images of at least 16x16 pixels"):
        vgg((8, 8, 3), blocks=4)
