"""Speed run: the accuracy of the tutorial's best experiment in a hundredth of its epochs.

The same images and the same kind of network, but the ideas here are to make the network learn more
from a step, or a step cheaper. `--without IDEA` leaves one of them out, to see what it is worth;
docs/speedrun.md tells what it was here.

Idea: Jordan 2024, "94 % on CIFAR-10 in 3.29 seconds on a single GPU",
https://arxiv.org/abs/2404.00498, which tells where each of them comes from
"""

import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from harness import Experiment, run_experiment
from machinery.errors import UsageError, readable_errors
from machinery.options import command, option_parser, parse_options

import keras
import numpy as np
import tensorflow as tf
from keras import layers

# Widths chosen on held-out training images; as many epochs as two processor cores can train in 5
# and 30 minutes, with time to spare.
TARGETS = {
    "88.62": {"widths": (32, 128, 256), "epochs": 4},
    "94": {"widths": (64, 256, 256), "epochs": 13},
}
IDEAS = (
    "whitening", "identity", "unscaled", "triangle", "nesterov", "fast-biases", "smoothing",
    "alternating", "shift", "averaging", "tta",
)  # fmt: skip

PEAK_LEARNING_RATE = 0.75  # for batches of 512
MOMENTUM = 0.85
WEIGHT_DECAY = 0.0089  # times the learning rate, per step


def define_model(input_shape=(32, 32, 3), classes=10, *, widths, without=None):
    """Build and compile the network: fixed whitening filters, then three blocks of two layers.

    Args:
        input_shape: height, width and channels of an image; the channels have to be 3.
        classes: their number.
        widths: filters of each block's convolutions, three numbers.
        without: an idea of `IDEAS` to leave out, or None.

    Returns:
        A compiled `keras.Model` from float32 images (n, height, width, 3) in [0, 1] to float32
        class probabilities (n, classes).

    Raises:
        UsageError: if the images are too small for that.
    """
    if min(input_shape[:2]) < 16:  # the whitening takes a pixel of 8, and the poolings need 7 more
        raise UsageError("the speed run needs images of at least 16x16 pixels: --image-size 16")
    inputs = keras.Input(input_shape)
    # Whitening amplifies small differences between pixels, which bfloat16 would round away.
    x = layers.Normalization(
        mean=(0.491, 0.482, 0.447),  # of the training images, for each colour
        variance=(0.061, 0.059, 0.068),
        dtype="float32",
    )(inputs)
    x = layers.Conv2D(24, 2, use_bias=False, name="whitening", dtype="float32")(x)
    x = layers.Activation("gelu")(x)
    for width in widths:
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = layers.MaxPooling2D(2)(x)  # before what follows, which costs a quarter then
        x = normalize_and_activate(x, without)
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        x = normalize_and_activate(x, without)
    x = layers.GlobalMaxPooling2D()(x)
    x = layers.Dense(classes, use_bias=False, dtype="float32")(x)
    x = layers.Rescaling(1 / 9, dtype="float32")(x)  # unsure of itself at first
    model = keras.Model(inputs, layers.Softmax(dtype="float32")(x))
    if without != "identity":
        start_as_identity(model)
    model.compile(
        optimizer=SGDWithFastBiases(
            PEAK_LEARNING_RATE,
            MOMENTUM,
            nesterov=without != "nesterov",
            weight_decay=WEIGHT_DECAY,
            bias_factor=1 if without == "fast-biases" else 64,
        ),
        loss=keras.losses.CategoricalCrossentropy(
            label_smoothing=0 if without == "smoothing" else 0.2
        ),
        metrics=["accuracy"],
    )
    return model


def normalize_and_activate(x, without):
    """Normalize without a learned scale, which the next convolution can as well provide."""
    x = layers.BatchNormalization(momentum=0.6, epsilon=1e-5, scale=without == "unscaled")(x)
    return layers.Activation("gelu")(x)


def start_as_identity(model):
    """Let the first filters of each convolution begin by passing their input on unchanged.

    Zagoruyko and Komodakis 2017, https://arxiv.org/abs/1706.00388
    """
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D) and layer.name != "whitening":
            kernel = layer.kernel.numpy()
            passed_on = range(min(kernel.shape[2:]))
            kernel[..., passed_on] = 0
            kernel[1, 1, passed_on, passed_on] = 1
            layer.kernel.assign(kernel)


def whiten(model, images):
    """Have the first layer tell apart what is uncorrelated in 2x2 pixels, and learn no more.

    Its filters are the eigenvectors of the covariance of patches of 2x2 pixels, scaled to equal
    variance of their outputs, and the negatives of these.

    Args:
        model: what `define_model` returned, changed in place.
        images: uint8 (n, height, width, 3), the training images.
    """
    layer = model.get_layer("whitening")
    normalized = model.layers[1](images[:5000] / np.float32(255))
    patches = tf.reshape(tf.image.extract_patches(
        tf.cast(normalized, tf.float32), [1, 2, 2, 1], [1, 1, 1, 1], [1, 1, 1, 1], "VALID"
    ), (-1, 12))  # fmt: skip
    covariance = tf.matmul(patches, patches, transpose_a=True) / len(patches)
    variances, vectors = np.linalg.eigh(covariance)
    filters = (vectors / np.sqrt(variances + 5e-4)).reshape(2, 2, 3, 12)
    layer.kernel.assign(np.concatenate([filters, -filters], axis=-1))
    layer.trainable = False


@keras.saving.register_keras_serializable()
class SGDWithFastBiases(keras.optimizers.SGD):
    """Stochastic gradient descent with a higher learning rate for the biases of normalizations."""

    def __init__(self, learning_rate, momentum, bias_factor, **options):
        super().__init__(learning_rate, momentum, **options)
        self.bias_factor = bias_factor

    def update_step(self, gradient, variable, learning_rate):
        factor = self.bias_factor if "beta" in variable.name else 1
        super().update_step(gradient, variable, factor * learning_rate)

    def get_config(self):
        return {**super().get_config(), "bias_factor": self.bias_factor}


class TriangularLearningRate(keras.callbacks.Callback):
    """Raises the learning rate to its peak within a quarter of the training, and lowers it again.

    Smith and Topin 2017, https://arxiv.org/abs/1708.07120
    """

    def on_train_batch_begin(self, batch, logs=None):
        done = float(self.model.optimizer.iterations) / (
            self.params["epochs"] * self.params["steps"]
        )
        height = np.interp(done, (0, 0.23, 1), (0.2, 1, 0.07))
        self.model.optimizer.learning_rate = PEAK_LEARNING_RATE * height


class Lookahead(keras.callbacks.Callback):
    """Every five steps, draws the weights back to their average so far, more so towards the end.

    Zhang et al. 2019, https://arxiv.org/abs/1907.08610
    """

    def on_train_begin(self, logs=None):
        self.average = self.model.get_weights()

    def on_train_batch_end(self, batch, logs=None):
        if (batch + 1) % 5 and batch + 1 < self.params["steps"]:
            return
        steps = self.params["epochs"] * self.params["steps"]
        decay = 0.95**5 * (float(self.model.optimizer.iterations) / steps) ** 3
        self.average = [
            decay * average + (1 - decay) * weights
            for average, weights in zip(self.average, self.model.get_weights(), strict=True)
        ]
        self.model.set_weights(self.average)


def augment(images, labels, indices, epoch, random, without=None):
    """Flip every second image, the others in the next epoch, and shift each by up to 2 pixels.

    So each pair of epochs shows an image both ways. Borders are filled by reflection.
    See `data.batches.TrainingBatches` for the arguments.
    """
    n, size = images.shape[:2]
    shift = random.integers(-2, 3, size=(2, n, 1))
    if without == "shift":
        shift = np.zeros_like(shift)
    rows, columns = np.arange(size) + shift
    flipped = (indices + epoch) % 2 == 0
    if without == "alternating":
        flipped = random.random(n) < 0.5
    columns = np.where(flipped[:, None], size - 1 - columns, columns)

    def reflect(coordinates):
        return size - 1 - np.abs(size - 1 - np.abs(coordinates))

    rows, columns = reflect(rows)[:, :, None], reflect(columns)[:, None, :]
    return images[np.arange(n)[:, None, None], rows, columns], labels


def test_time_augmentation(model):
    """Return a model that averages the predictions for six views: three shifts, flipped or not.

    The views that are not shifted count twice. The model takes and gives what the trained one does,
    and is compiled to be evaluated.

    Krizhevsky et al. 2012, section 4.1, https://doi.org/10.1145/3065386
    """
    inputs = keras.Input(model.input_shape[1:])
    padded = keras.ops.pad(inputs, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    views = inputs, padded[:, :-2, :-2], padded[:, 2:, 2:]
    once, up_left, down_right = (
        model(view) + model(keras.ops.flip(view, axis=2)) for view in views
    )
    averaged = keras.Model(inputs, (2 * once + up_left + down_right) / 8)
    averaged.compile(loss=model.loss, metrics=["accuracy"])
    return averaged


def experiment(target="88.62", without=None):
    """Return the `Experiment` that reaches a target, with all ideas but one."""
    callbacks = []
    if without != "triangle":
        callbacks.append(TriangularLearningRate())
    if without != "averaging":
        callbacks.append(Lookahead())
    return Experiment(
        partial(define_model, widths=TARGETS[target]["widths"], without=without),
        epochs=TARGETS[target]["epochs"],
        published_accuracy=float(target),
        batch_size=512,
        augment=partial(augment, without=without),
        initialize=None if without == "whitening" else whiten,
        callbacks=tuple(callbacks),
        test_time_augmentation=None if without == "tta" else test_time_augmentation,
    )


EXPERIMENT = experiment()


def name_of(target="88.62", without=None):
    """Return what the runs of a variant are called."""
    name = "speedrun" if target == "88.62" else "speedrun_94"
    return f"{name}_without_{without}" if without else name


# By the names of their runs: the options that ask for the variants.
VARIANTS = {
    name_of(**variant): variant
    for target in ({}, {"target": "94"})
    for variant in (target, *(target | {"without": idea} for idea in IDEAS))
}
ABLATION = tuple(name for name, variant in VARIANTS.items() if "target" not in variant)


def main():
    epochs = [str(target["epochs"]) for target in TARGETS.values()]
    parser = option_parser(" or ".join(epochs))
    parser.add_argument("--target", choices=TARGETS, default="88.62",
        help="test accuracy to reach, in percent (%(default)s)")  # fmt: skip
    parser.add_argument("--without", choices=IDEAS, metavar="IDEA",
        help=f"leave an idea out: {', '.join(IDEAS)}")  # fmt: skip
    options = parse_options(parser)
    name = name_of(options.target, options.without)
    run_experiment(name, experiment(options.target, options.without), options)
    print(f"Next:            {command('compare.py', options)}")


if __name__ == "__main__":
    with readable_errors():
        main()
