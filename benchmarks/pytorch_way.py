"""PyTorch's way to train: a twin of an experiment's network, the same layers in the same order."""

import os
import sys
import time

from experiments import load_experiment

from workers import BATCH_SIZE


def train_with_pytorch(connection, name, options, dtype="float32"):
    """Train the same network as often in PyTorch, channels last, always with the same batch.

    That spares PyTorch what the other ways' times include: choosing and augmenting images.

    Args:
        connection: to the `workers.Worker`.
        name: of the experiment.
        options: `images`: how many an epoch has.
        dtype: "float32" or "bfloat16", which PyTorch's autocast computes in.
    """
    sys.modules["triton"] = None  # PyTorch's compiler for GPUs crashes beside TensorFlow
    import torch
    from torch import nn

    torch.set_num_threads(os.cpu_count())
    model = load_experiment(name).define_model()
    modules = [getattr(nn, kind)(**arguments) for kind, arguments in twin_layers(model)]
    network = nn.Sequential(*modules).to(memory_format=torch.channels_last)
    kernels = [module.weight for module in network if isinstance(module, nn.Conv2d | nn.Linear)]
    regularizers = [layer.kernel_regularizer for layer in model.layers if hasattr(layer, "kernel")]
    penalties = [
        (kernel, float(regularizer.l2))
        for kernel, regularizer in zip(kernels, regularizers, strict=True)
        if regularizer
    ]
    optimizer = torch.optim.SGD(network.parameters(), lr=0.001, momentum=0.9)
    images = torch.rand(BATCH_SIZE, 3, 32, 32).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (BATCH_SIZE,))
    steps = options.images // BATCH_SIZE
    while True:
        connection.recv()
        start = time.perf_counter()
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
                loss = nn.functional.cross_entropy(network(images).float(), labels)
            for kernel, weight_decay in penalties:
                loss = loss + weight_decay * kernel.square().sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        loss.item()
        connection.send({"training": steps * BATCH_SIZE / (time.perf_counter() - start)})


def twin_layers(model):
    """Return PyTorch's counterparts of a model's layers, in their order.

    Args:
        model: a Keras model, a chain of layers of the kinds that the tutorial's networks have.

    Returns:
        A list of `(name of a class in torch.nn, its arguments)`.

    Raises:
        ValueError: if a layer has no counterpart here.
    """
    twins = []
    for layer in model.layers[1:]:
        channels = layer.input.shape[-1]
        match type(layer).__name__:
            case "Conv2D" if (layer.kernel_size, layer.strides, layer.padding) == (
                (3, 3), (1, 1), "same",
            ):  # fmt: skip
                sizes = {"in_channels": channels, "out_channels": layer.filters}
                twins.append(("Conv2d", {**sizes, "kernel_size": 3, "padding": 1}))
            case "Dense":
                twins.append(("Linear", {"in_features": channels, "out_features": layer.units}))
            case "BatchNormalization":
                kind = "BatchNorm2d" if len(layer.input.shape) == 4 else "BatchNorm1d"
                momentum = 1 - layer.momentum  # PyTorch's is the share of the new value
                arguments = {"momentum": momentum, "eps": layer.epsilon}
                twins.append((kind, {"num_features": channels, **arguments}))
            case "MaxPooling2D" if layer.pool_size == layer.strides == (2, 2):
                twins.append(("MaxPool2d", {"kernel_size": 2}))
            case "Dropout":
                twins.append(("Dropout", {"p": layer.rate}))
            case "Flatten":
                twins.append(("Flatten", {}))
            case "RandomFlip" | "RandomTranslation":
                pass  # PyTorch is spared augmentation, as it is spared choosing images
            case kind:
                raise ValueError(f"layer {layer.name}: PyTorch's twin of this {kind} is not known")
        match getattr(getattr(layer, "activation", None), "__name__", None):
            case "relu":
                twins.append(("ReLU", {}))
            case "softmax" if layer is model.layers[-1]:
                pass  # it is part of PyTorch's loss
            case None | "linear":
                pass
            case activation:
                raise ValueError(
                    f"layer {layer.name}: PyTorch's twin of activation {activation} is not known"
                )
    return twins
