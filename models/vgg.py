"""The VGG-style network that the tutorial's experiments vary."""

from machinery.errors import UsageError

import keras
from keras import layers


def vgg(
    input_shape=(32, 32, 3),
    classes=10,
    *,
    blocks,
    dropout_rates=None,
    weight_decay=None,
    batch_norm=False,
    optimizer=None,
    preprocessing=(),
):
    """Build and compile a small VGG network, by default for CIFAR-10.

    The number of filters doubles from block to block: 32, 64, 128 and so on. A hidden dense layer
    of 128 units and an output layer with a unit for each class follow.

    Args:
        input_shape: height, width and channels of an image. Each block halves height and width.
        classes: their number, from 2.
        blocks: number of blocks, from 1, see `vgg_block`; of 32x32 pixels, 5 leave a single one.
        dropout_rates: fractions of values set to zero in training, in [0, 1): one for the end of
            each block and a last one for the hidden dense layer, so `blocks + 1` of them
            (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html). None for no
            dropout.
        weight_decay: L2 penalty on the weights of the convolutions and the hidden dense layer,
            added to the loss (Krogh and Hertz 1991). None for no penalty.
        batch_norm: normalize over the batch after every convolution and the hidden dense layer
            (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167).
        optimizer: a Keras optimizer. None for stochastic gradient descent with learning rate 0.001
            and momentum 0.9.
        preprocessing: Keras layers that change the images before the first block: augmentation,
            which acts in training only, or another scaling of the pixels.

    Returns:
        A compiled `keras.Model` from float32 images (n, height, width, channels) in [0, 1] to
        float32 class probabilities (n, classes).

    Raises:
        ValueError: if there are not `blocks + 1` dropout rates.
        UsageError: if the images are too small for so many blocks.
    """
    rates = (None,) * (blocks + 1) if dropout_rates is None else dropout_rates
    if len(rates) != blocks + 1:
        raise ValueError(
            f"{blocks} blocks and the dense layer need {blocks + 1} dropout rates, got {len(rates)}"
        )

    if min(input_shape[:2]) < 2**blocks:
        raise UsageError(
            f"{blocks} blocks need images of at least {2**blocks}x{2**blocks} pixels: a larger "
            "--image-size, or an experiment with fewer blocks"
        )

    inputs = x = keras.Input(input_shape)
    for layer in preprocessing:
        x = layer(x)
    for block in range(blocks):
        x = vgg_block(x, 32 * 2**block, rates[block], weight_decay, batch_norm)

    x = layers.Flatten()(x)
    x = layers.Dense(
        128,
        activation="relu",
        kernel_initializer="he_uniform",
        kernel_regularizer=penalty(weight_decay),
    )(x)
    if batch_norm:
        x = layers.BatchNormalization()(x)
    if rates[-1]:
        x = layers.Dropout(rates[-1])(x)
    # The softmax stays in float32 even if the layers before it compute in bfloat16.
    outputs = layers.Dense(classes, activation="softmax", dtype="float32")(x)

    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=optimizer or keras.optimizers.SGD(learning_rate=0.001, momentum=0.9),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def vgg_block(x, filters, dropout_rate=None, weight_decay=None, batch_norm=False):
    """Apply two 3x3 convolutions, then 2x2 max pooling, which halves height and width.

    Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556

    Args:
        x: a Keras tensor (n, height, width, channels).
        filters: their number in each convolution.
        dropout_rate, weight_decay, batch_norm: see `vgg`.

    Returns:
        A Keras tensor (n, height // 2, width // 2, filters).
    """
    for _ in range(2):
        x = layers.Conv2D(
            filters,
            kernel_size=3,
            padding="same",
            activation="relu",
            kernel_initializer="he_uniform",
            kernel_regularizer=penalty(weight_decay),
        )(x)
        if batch_norm:
            x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D(pool_size=2)(x)
    if dropout_rate:
        x = layers.Dropout(dropout_rate)(x)
    return x


def penalty(weight_decay):
    return keras.regularizers.L2(weight_decay) if weight_decay else None
