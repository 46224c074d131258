"""What a run's numbers depend on in the code of its experiment, to tell whether it was edited."""

import functools
import inspect
import json

import keras


def recipe_of(experiment, model):
    """Return everything in an experiment that its numbers depend on, by name.

    Args:
        experiment: a `harness.Experiment`.
        model: the compiled model that it defines.

    Returns:
        A flat dict of what JSON can express: `{"conv2d.filters": 32, ...}`.
    """
    parts = {layer.name: layer.get_config() for layer in model.layers}
    parts["network"] = [node_names(layer) for layer in model.layers]
    parts["optimizer"] = model.optimizer.get_config()
    parts["loss"] = keras.saving.serialize_keras_object(model.loss)
    for field in ("augment", "initialize", "test_time_augmentation", "callbacks"):
        parts[field] = describe(getattr(experiment, field))
    return json.loads(json.dumps(dict(flatten(parts)), default=str))


def node_names(layer):
    """Return a layer's class and name, and the names of those that its inputs come from."""
    inputs = keras.tree.flatten(layer.input)
    return [
        type(layer).__name__,
        layer.name,
        *(tensor._keras_history.operation.name for tensor in inputs),
    ]


def describe(value):
    """Return what tells a value of an experiment from an edited one."""
    if isinstance(value, functools.partial):
        return {"function": describe(value.func), "arguments": [value.args, value.keywords]}
    if isinstance(value, tuple | list):
        return [describe(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if inspect.isroutine(value):
        return source_of(value)
    attributes = (
        {name: describe(attribute) for name, attribute in vars(value).items()}
        if hasattr(value, "__dict__")
        else {}
    )
    return {"class": source_of(type(value)), **attributes}


def source_of(value):
    """Return the code of a function or class of the project's; the name of anybody else's."""
    name = f"{value.__module__}.{value.__qualname__}"
    if value.__module__.partition(".")[0] in ("keras", "numpy", "tensorflow", "builtins"):
        return name
    try:
        return inspect.getsource(value)
    except (OSError, TypeError):
        return name


def flatten(parts, path=""):
    """Yield `(path, value)` for everything in nested dicts and lists."""
    items = parts.items() if isinstance(parts, dict) else enumerate(parts)
    for name, value in items:
        inner = f"{path}.{name}" if path else str(name)
        if isinstance(value, dict | list | tuple) and value:
            yield from flatten(value, inner)
        else:
            yield inner, value


def differences(before, now):
    """Return in words what differs between two recipes, one text for each difference."""
    texts = []
    for name in dict.fromkeys((*before, *now)):
        if name not in now:
            texts.append(f"{name} is gone")
        elif name not in before:
            texts.append(f"{name} is new")
        elif before[name] != now[name]:
            is_code = "\n" in str(before[name]) + str(now[name])
            texts.append(
                f"{name}: the code was edited"
                if is_code
                else f"{name} was {before[name]}, not {now[name]}"
            )
    return texts
