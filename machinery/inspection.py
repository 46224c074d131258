"""What a compiled model is made of, for records and pictures."""

import keras
import numpy as np


def innermost_layers(model):
    """Yield a model's layers, and in place of a layer that is itself a model, that one's."""
    for layer in model.layers:
        yield from innermost_layers(layer) if isinstance(layer, keras.Model) else [layer]


def name_of_loss(model):
    """Return what a model's loss is made of, for the axes of pictures."""
    name = str(getattr(model.loss, "name", model.loss))
    name = "cross-entropy" if "cross" in name and "focal" not in name else "loss"
    if smoothing := getattr(model.loss, "label_smoothing", 0):
        name += f" to labels smoothed by {smoothing:g}"
    inner_layers = list(innermost_layers(model))
    if any(layer.activity_regularizer for layer in inner_layers):  # for what a layer puts out
        return f"{name} + penalties"
    if not model.losses:
        return name
    kernels = [getattr(layer, "kernel_regularizer", None) for layer in inner_layers]
    factors = sorted({float(each.l2) for each in kernels if hasattr(each, "l2")})
    told = f" ({', '.join(f'{factor:g}' for factor in factors)})" if factors else ""
    return f"{name} + penalty for weights{told}"


def operations_per_image(model):
    """Return the floating-point operations of a training step per image.

    Counts the multiplications and additions of convolutions and dense layers, which are nearly
    all: one matrix multiplication forward, one backward for the gradient of the weights and one for
    that of the inputs, where these are needed.
    """
    operations, trained_before = 0, False
    for layer in innermost_layers(model):
        if hasattr(layer, "kernel"):
            product = 2 * np.prod(layer.kernel.shape) * np.prod(layer.output.shape[1:-1])
            operations += product * (1 + layer.trainable + trained_before)
            trained_before |= layer.trainable
    return float(operations)
