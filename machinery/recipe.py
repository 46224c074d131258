"""What a run's numbers depend on in the code of its experiment, to tell whether it was edited."""

import ast
import functools
import inspect
import json
import sysconfig
import textwrap
from pathlib import Path

from machinery.errors import UsageError

import keras

NOT_OURS = ("stdlib", "platstdlib", "purelib", "platlib")


def recipe_of(experiment, model):
    """Return everything in an experiment that its numbers depend on, by name.

    Args:
        experiment: a `harness.Experiment`.
        model: the compiled model that it defines.

    Returns:
        A flat dict of what JSON can express: `{"Conv2D 1.filters": 32, ...}`.

    Raises:
        UsageError: if the model does not say which layers it has, or of which shape.
    """
    if not (model.built and getattr(model, "inputs", None)):
        raise UsageError(
            "define_model has to return a functional model, or a Sequential that begins with "
            "keras.Input: of others Keras does not know the layers before they are trained"
        )
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
    if experiment.learning_rate:  # checkpoints from before there was this field lack it
        parts["learning_rate"] = describe(experiment.learning_rate)
    recipe = json.loads(json.dumps(dict(flatten(parts)), default=str))
    return {name: labels.get(str(value), value) for name, value in recipe.items()}


def describe(value, above=()):
    """Return what tells a value of an experiment from an edited one.

    Of functions and classes of the project that is their code, and what else of the project it
    uses; of anybody else's, their names.

    Args:
        value: anything.
        above: the functions and classes that are being described already, which may use each other.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, tuple | list):
        return [describe(item, above) for item in value]
    if isinstance(value, dict):
        return {str(name): describe(item, above) for name, item in value.items()}
    if isinstance(value, functools.partial):
        arguments = [describe(value.args, above), describe(value.keywords, above)]
        return {"function": describe(value.func, above), "arguments": arguments}
    if inspect.isroutine(value) or inspect.isclass(value):
        return describe_code(value, above)
    attributes = {
        name: describe(attribute, above)
        for name, attribute in getattr(value, "__dict__", {}).items()
        if name not in ("_model", "params")  # which Keras sets when training begins
    }
    return {"class": describe_code(type(value), above), **attributes}


def describe_code(value, above):
    """Return the code of a function or class, with what it uses; see `describe`."""
    name = f"{value.__module__}.{value.__qualname__}"
    try:
        file = Path(inspect.getfile(value))
        code = without_comments(inspect.getsource(value))
    except (OSError, TypeError):  # written in C, or typed in
        return name
    # Python's own modules and installed packages are known by their versions, not by their code.
    if value in above or any(file.is_relative_to(sysconfig.get_path(kind)) for kind in NOT_OURS):
        return name
    used = {}
    for function in vars(value).values() if inspect.isclass(value) else (value,):
        if inspect.isfunction(function):
            variables = inspect.getclosurevars(function)
            used |= variables.nonlocals | variables.globals
    above = (*above, value)
    uses = {name: describe(it, above) for name, it in used.items() if not inspect.ismodule(it)}
    return {"code": code, **uses}


def without_comments(source):
    """Return the code of a function or class without comments and docstrings."""
    try:
        tree = ast.parse(textwrap.dedent(source))
    except SyntaxError:  # a lambda, cut out of its line
        return source
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


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
            if "\n" in f"{before[name]}{now[name]}":
                texts.append(f"the code of {name.removesuffix('.code')} was edited")
            else:
                texts.append(f"{name} was {shown(before[name])}, not {shown(now[name])}")
    return texts


def shown(value):
    """Return a value as one would write it: 0.001, not the float32 next to it."""
    return f"{value:.6g}" if isinstance(value, float) else textwrap.shorten(str(value), 100)
