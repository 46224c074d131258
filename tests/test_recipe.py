import importlib.util
import json
import shutil
import sys
from functools import partial
from pathlib import Path

from conftest import TINY, assert_refused, ctrl_c_after, tiny_network, train
from harness import Experiment
from machinery.recipe import describe, differences, recipe_of
from models.vgg import vgg

import keras
import pytest
from keras import layers
from keras.callbacks import EarlyStopping, ReduceLROnPlateau

AUGMENT = (
    "def augment(images, labels, indices, epoch, random, by=1):\n    return images * {}, labels\n"
)


def from_file(path, code, name="augment"):
    """Import a function from a file with this code."""
    path.write_text(code)
    specification = importlib.util.spec_from_file_location(f"of_the_users_{path.stem}", path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[module.__name__] = module  # where Python looks for the code of a class
    specification.loader.exec_module(module)
    return getattr(module, name)


def experiment(**edits):
    given = {
        "define_model": tiny_network,
        "epochs": 3,
        "callbacks": (EarlyStopping(patience=5), ReduceLROnPlateau(patience=1, min_delta=10)),
    }
    return Experiment(**given | edits)


def edited(before, after):
    """The differences between two experiments, each taken as a new process would."""
    recipes = []
    for each in (before, after):
        keras.utils.clear_session(free_memory=False)
        recipes.append(recipe_of(each, each.define_model()))
    return differences(*recipes)


def test_unedited_code_makes_no_difference(tmp_path):
    one, same = (from_file(tmp_path / f"{k}.py", AUGMENT.format(0.5)) for k in (1, 2))
    assert edited(experiment(augment=one), experiment(augment=same)) == []
    assert edited(
        experiment(augment=partial(one, by=2)), experiment(augment=partial(same, by=2))
    ) == []  # fmt: skip
    assert edited(
        experiment(augment=partial(print, one)), experiment(augment=partial(print, same))
    ) == []  # fmt: skip


def test_edited_augmentation_is_named(tmp_path):
    one, other = (from_file(tmp_path / f"{k}.py", AUGMENT.format(k)) for k in (1, 2))
    assert edited(experiment(augment=one), experiment(augment=other)) == [
        "the code of augment was edited"
    ]
    (difference,) = edited(
        experiment(augment=partial(one, by=1)), experiment(augment=partial(one, by=2))
    )
    assert "augment" in difference and difference.endswith("was 1, not 2")


WHOLE = "def augment(images, labels, indices, epoch, random):\n    {}return images, labels  # {}\n"
EMPTY = "import keras\nclass Mine(keras.callbacks.Callback):\n    {}\n"


def test_comments_and_docstrings_may_be_edited(tmp_path):
    codes = WHOLE.format("", "as they are"), WHOLE.format('"""Do nothing."""\n    ', "both")
    one, same = (from_file(tmp_path / f"{k}.py", code) for k, code in enumerate(codes))
    assert edited(experiment(augment=one), experiment(augment=same)) == []
    codes = EMPTY.format("pass"), EMPTY.format('"""Does nothing."""')
    one, same = (from_file(tmp_path / f"{k}.py", code, "Mine")() for k, code in enumerate(codes))
    assert edited(experiment(callbacks=(one,)), experiment(callbacks=(same,))) == []


CALLBACK = """
import keras
class Mine(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.seen = {}
"""


def test_edited_class_of_a_callback_is_named(tmp_path):
    one, other = (from_file(tmp_path / f"{k}.py", CALLBACK.format(k), "Mine")() for k in (1, 2))
    (difference,) = edited(experiment(callbacks=(one,)), experiment(callbacks=(other,)))
    assert difference == "the code of callbacks.0.class was edited"


SGD, ADAM = keras.optimizers.SGD, keras.optimizers.Adam


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        (tiny_network, partial(tiny_network, units=9), "units was 8, not 9"),
        (
            tiny_network,
            partial(tiny_network, loss="mse"),
            "loss was categorical_crossentropy",
        ),
        (
            tiny_network,
            partial(tiny_network, optimizer=SGD(0.02)),
            "optimizer.learning_rate was 0.01, not 0.02",
        ),
        (
            tiny_network,
            partial(tiny_network, optimizer=ADAM(0.01)),
            "optimizer.name was SGD",
        ),
        (lambda: vgg(blocks=1), lambda: vgg(blocks=2), "is new"),
        (lambda: vgg(blocks=1), lambda: vgg(blocks=1, dropout_rates=(0.2, 0.2)), "Dropout"),
        (
            lambda: vgg(blocks=1, dropout_rates=(0.2, 0.2)),
            lambda: vgg(blocks=1, dropout_rates=(0.2, 0.3)),
            "rate was 0.2, not 0.3",
        ),
        (lambda: vgg(blocks=1), lambda: vgg(blocks=1, weight_decay=0.1), "kernel_regularizer"),
    ],
)
def test_edited_network_or_optimizer_is_named(before, after, named):
    names = edited(experiment(define_model=before), experiment(define_model=after))
    assert any(named in name for name in names), names


def test_layers_that_are_connected_differently_make_another_network():
    def network(swapped):
        inputs = keras.Input((32, 32, 3))
        x, y = layers.Conv2D(4, 3)(inputs), layers.Conv2D(4, 3, activation="relu")(inputs)
        x = layers.Subtract()([y, x] if swapped else [x, y])
        model = keras.Model(inputs, layers.Dense(10)(layers.Flatten()(x)))
        model.compile("sgd", "mse")
        return model

    def each(swapped):
        return experiment(define_model=lambda *shape: network(swapped))

    assert edited(each(True), each(True)) == []
    assert edited(each(False), each(True)) != []


def test_edited_settings_of_callbacks_are_named():
    impatient = EarlyStopping(patience=2), ReduceLROnPlateau(patience=1, min_delta=10)
    assert edited(experiment(), experiment(callbacks=impatient)) == [
        "callbacks.0.patience was 5, not 2"
    ]
    assert edited(experiment(), experiment(callbacks=())) != []
    assert edited(experiment(), experiment(callbacks=experiment().callbacks[::-1])) != []


@pytest.mark.parametrize("field", ["initialize", "test_time_augmentation", "learning_rate"])
def test_other_parts_of_an_experiment_count_too(field):
    assert edited(experiment(), experiment(**{field: print})) != []


SCHEDULE = """
import keras
class Mine(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return {}
def learning_rate(steps_per_epoch, epochs):
    return Mine()
"""


def test_edited_class_of_a_schedule_is_named(tmp_path):
    one, other = (
        from_file(tmp_path / f"{k}.py", SCHEDULE.format(k), "learning_rate") for k in (1, 2)
    )
    assert edited(experiment(learning_rate=one), experiment(learning_rate=other)) == [
        "the code of learning_rate.Mine was edited"
    ]


def test_checkpoints_from_before_there_were_schedules_are_still_resumed():
    parts = experiment()
    assert "learning_rate" not in recipe_of(parts, parts.define_model())


def test_differences_are_told_in_words():
    before = {"a": 1, "b": 2, "c": "def f():\n  1"}
    now = {"a": 2, "c": "def f():\n  2", "d": 4}
    assert differences(before, now) == [
        "a was 1, not 2", "b is gone", "the code of c was edited", "d is new"
    ]  # fmt: skip
    assert differences(before, dict(before)) == []


# A run refuses to go on with another experiment than it began with.


@pytest.fixture(scope="module")
def code(tmp_path_factory):
    """Two versions of the same function."""
    folder = tmp_path_factory.mktemp("code")
    return [from_file(folder / f"{k}.py", AUGMENT.format(k)) for k in (1, 2)]


THREE = (*TINY, "--epochs", 3)


@pytest.fixture(scope="module")
def broken_off(tmp_path_factory, code):
    """A run of three epochs that Ctrl-C broke off after two, when the learning rate had fallen."""
    folder = tmp_path_factory.mktemp("broken_off")
    with ctrl_c_after(2):
        assert train(experiment(augment=code[0]), *THREE, cwd=folder).code == 130
    return folder


EDITS = {
    "network": ({"define_model": partial(tiny_network, units=9)}, "units was 8, not 9"),
    "optimizer": ({"define_model": partial(tiny_network, optimizer=ADAM(0.01))}, "optimizer"),
    "learning rate": (
        {"define_model": partial(tiny_network, optimizer=SGD(0.02))}, "learning_rate was 0.0",
    ),
    "callbacks": ({"callbacks": ()}, "callbacks"),
    "patience": (
        {"callbacks": (EarlyStopping(patience=4), ReduceLROnPlateau(patience=1, min_delta=10))},
        "callbacks.0.patience was 5, not 4",
    ),
}  # fmt: skip


@pytest.mark.parametrize("edit", EDITS)
def test_resuming_an_edited_experiment_is_refused(broken_off, code, edit):
    fields, named = EDITS[edit]
    before = (broken_off / "runs" / "mine.checkpoint.keras").read_bytes()
    edited_experiment = experiment(**{"augment": code[0], **fields})
    ended = train(edited_experiment, *THREE, "--resume", cwd=broken_off)
    assert_refused(ended, "was trained with other code", named, "Undo the edit")
    assert (broken_off / "runs" / "mine.checkpoint.keras").read_bytes() == before


def test_resuming_with_edited_augmentation_is_refused(broken_off, code):
    ended = train(experiment(augment=code[1]), *THREE, "--resume", cwd=broken_off)
    assert_refused(ended, "the code of augment was edited")


def test_resuming_an_unedited_experiment_goes_on(broken_off, code, tmp_path):
    """Though the learning rate in the checkpoint is another than in the code by now."""
    shutil.copytree(broken_off, tmp_path, dirs_exist_ok=True)
    ended = train(experiment(augment=code[0]), *THREE, "--resume", cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert "Resuming after epoch 2 of 3" in ended.output


def uses_pythons_own(images, indices, epoch, random):
    return [Path(json.dumps(indices)), images]


def test_code_of_pythons_own_is_not_looked_into():
    described = describe(uses_pythons_own)
    assert described["Path"] in ("pathlib.Path", "pathlib._local.Path")  # the latter in Python 3.13
    assert "json" not in described  # a module
