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
        A flat dict of what JSON can express: `{"Conv2D 1.filters": 32, ...}`.
    """
    layers = model.get_config()["layers"]
    # Keras numbers the names of layers through all models of a process; these count in their own.
    labels = {
        layer["config"]["name"]: f"{layer['class_name']} {k}" for k, layer in enumerate(layers)
    }
    parts = {
        labels[layer["config"]["name"]]: {**layer["config"], "inputs": layer.get("inbound_nodes")}
        for layer in layers
    }
    parts["optimizer"] = {**model.optimizer.get_config(), "name": type(model.optimizer).__name__}
    parts["loss"] = keras.saving.serialize_keras_object(model.loss)
    for field in ("augment", "initialize", "test_time_augmentation", "callbacks"):
        parts[field] = describe(getattr(experiment, field))
    recipe = json.loads(json.dumps(dict(flatten(parts)), default=str))
    return {name: labels.get(str(value), value) for name, value in recipe.items()}


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
    attributes = {
        name: describe(attribute)
        for name, attribute in getattr(value, "__dict__", {}).items()
        if name not in ("_model", "params")  # which Keras sets when training begins
    }
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
            edited = f"{name} was {shown(before[name])}, not {shown(now[name])}"
            texts.append(f"the code of {name} was edited" if "\n" in edited else edited)
    return texts


def shown(value):
    """Return a value as one would write it: 0.001, not the float32 next to it."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
