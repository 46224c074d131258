"""The VGG-style network that every experiment varies."""

import keras
from keras import layers


def vgg(blocks, dropout_rates=None, weight_decay=None, batch_norm=False):
    """Build and compile a small VGG network for 32x32 colour images in ten classes.

    Each block is two 3x3 convolutions followed by 2x2 max pooling, the idea of VGG
    (Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556); the number of filters
    doubles from block to block: 32, 64, 128.

    Args:
        blocks: number of blocks, at least 1.
        dropout_rates: fraction of values set to zero in training, in [0, 1): one rate for the
            end of each block and a last one for the dense layer, so `blocks + 1` of them.
            None for no dropout (Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html).
        weight_decay: L2 penalty on the weights of convolutions and hidden dense layer, added
            to the loss (Krogh and Hertz 1991). None for no penalty.
        batch_norm: normalize over the batch after every convolution and the hidden dense layer
            (Ioffe and Szegedy 2015, https://arxiv.org/abs/1502.03167).

    Returns:
        A compiled `keras.Model` from float32 images (n, 32, 32, 3) in [0, 1] to float32 class
        probabilities (n, 10).

    Raises:
        ValueError: if there are not `blocks + 1` dropout rates.
    """
    if dropout_rates is not None and len(dropout_rates) != blocks + 1:
        raise ValueError(
            f"{blocks} blocks and the dense layer need {blocks + 1} dropout rates, "
            f"got {len(dropout_rates)}"
        )
    penalty = keras.regularizers.L2(weight_decay) if weight_decay else None

    inputs = x = keras.Input(shape=(32, 32, 3))

    for block in range(blocks):
        for _ in range(2):
            x = layers.Conv2D(
                filters=32 * 2**block,
                kernel_size=3,
                padding="same",
                activation="relu",
                kernel_initializer="he_uniform",
                kernel_regularizer=penalty,
            )(x)
            if batch_norm:
                x = layers.BatchNormalization()(x)
        x = layers.MaxPooling2D(pool_size=2)(x)
        if dropout_rates:
            x = layers.Dropout(dropout_rates[block])(x)

    x = layers.Flatten()(x)
    x = layers.Dense(
        128, activation="relu", kernel_initializer="he_uniform", kernel_regularizer=penalty
    )(x)
    if batch_norm:
        x = layers.BatchNormalization()(x)
    if dropout_rates:
        x = layers.Dropout(dropout_rates[-1])(x)
    # Probabilities need float32, also where the layers before compute in bfloat16.
    outputs = layers.Dense(10, activation="softmax", dtype="float32")(x)

    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.SGD(learning_rate=0.001, momentum=0.9),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model
