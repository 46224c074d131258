"""Networks that have learned something before: ImageNet, or CIFAR-10."""

import os

from machinery.environment import KERAS_HOME
from machinery.errors import DamagedError, UsageError, first_line
from machinery.files import blame, limited_memory, reading
from machinery.loading import MOST_BYTES, load_model, require_arrays
from machinery.options import SHIPPED

import keras
from keras import layers

VGG16_WEIGHTS = (
    "https://storage.googleapis.com/tensorflow/keras-applications/vgg16/"
    "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
VGG16_MD5 = "6d6bbae143d832006294945121d1f1fc"  # as in keras.applications


MEANS = 123.68, 116.779, 103.939  # of ImageNet's red, green and blue, in 0..255


def pretrained_vgg16(input_shape, classes, weights, trainable, learning_rate):
    """Build and compile the convolutions of VGG-16, with a dense layer of 128 units and a softmax.

    Simonyan and Zisserman 2014, https://arxiv.org/abs/1409.1556

    Args:
        input_shape: height, width and channels of an image, of at least 32x32 pixels.
        classes: their number.
        weights: of the convolutions: a file, or "imagenet" for Keras's download, kept for later.
        trainable: whether the convolutions learn; the layers after them always do.
        learning_rate: of Adam.

    Returns:
        A compiled `keras.Model` from float32 images (n, height, width, 3) in [0, 1] to float32
        class probabilities (n, classes).

    Raises:
        UsageError: if the images are too small, or the weights can't be had, or are not those of
            VGG-16's convolutions.
    """
    if min(input_shape[:2]) < 32:
        raise UsageError("VGG-16 needs images of at least 32x32 pixels: --image-size 32 or more")
    inputs = keras.Input(input_shape)
    # In float32: bfloat16 would round the pixels.
    x = layers.Rescaling(255, dtype="float32")(inputs)
    x = layers.Normalization(mean=MEANS, variance=(1, 1, 1), dtype="float32")(x)
    if weights == "imagenet":
        try:
            weights = keras.utils.get_file(
                origin=VGG16_WEIGHTS,
                file_hash=VGG16_MD5,
                cache_dir=KERAS_HOME,
                cache_subdir="models",
            )
        except Exception as error:  # Keras raises nothing narrower
            raise UsageError(
                f"can't download the weights of VGG-16 ({first_line(error)}): download "
                f"{VGG16_WEIGHTS} elsewhere and put the file into {KERAS_HOME / 'models'}"
            ) from error
    try:
        if weights:
            with reading(weights, MOST_BYTES):
                require_arrays(weights, os.path.getsize(weights))
        with blame(weights), limited_memory():
            vgg16 = keras.applications.VGG16(include_top=False, weights=weights, input_tensor=x)
    except DamagedError as error:
        raise UsageError(
            f"{error}. The weights of VGG-16 are at {VGG16_WEIGHTS}: name that file with --weights"
        ) from error
    # It has learned from blue, green and red, in this order: its first filters take ours turned.
    first = vgg16.get_layer("block1_conv1")
    kernel, bias = first.get_weights()
    first.set_weights([kernel[:, :, ::-1], bias])
    vgg16.trainable = trainable

    x = layers.Flatten()(vgg16.output)
    x = layers.Dense(128, activation="relu", kernel_initializer="he_uniform")(x)
    # The softmax stays in float32 even if the layers before it compute in bfloat16.
    outputs = layers.Dense(classes, activation="softmax", dtype="float32")(x)

    model = keras.Model(inputs, outputs)
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def shipped_features(images, blocks=2):
    """Compute what the convolutions of the shipped speed run find in images, with nothing to learn.

    Args:
        images: a Keras tensor (n, height, width, 3) in [0, 1], of 16x16 pixels and more.
        blocks: how many of the network's three to go through. The last one's features tell the
            classes of CIFAR-10 apart; those before may be more general.

    Returns:
        A Keras tensor (n, height', width', 256): how strongly each feature is found, and where.
    """
    path = SHIPPED / "speedrun_94.h5"
    with reading(path, MOST_BYTES):
        shipped = load_model(path, compile=False)
    features, convolutions = images, 0
    for layer in shipped.layers[1:]:  # without its own input, which is fixed to 32x32 pixels
        convolutions += isinstance(layer, layers.Conv2D)
        if convolutions > 1 + 2 * blocks or isinstance(layer, layers.GlobalMaxPooling2D):
            return features
        layer.trainable = False
        features = layer(features)
