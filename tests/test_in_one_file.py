import ast
import re
import runpy
import sys

from conftest import ROOT, assert_refused, call, colours, run
from experiments import in_one_file
from models.vgg import vgg

import keras
import matplotlib.pyplot as plt
import numpy as np
import pytest
from PIL import Image

SCRIPT = ROOT / "experiments" / "in_one_file.py"


@pytest.fixture(autouse=True)
def settings_of_matplotlib():
    """The script sets them back to Matplotlib's; other tests need ours."""
    with plt.rc_context():
        yield


def test_nothing_of_ours_is_imported():
    imported = set()
    for node in ast.walk(ast.parse(SCRIPT.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name.partition(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.partition(".")[0])
    assert "keras" in imported
    assert imported - sys.stdlib_module_names <= {"keras", "matplotlib", "numpy"}


def test_headings_are_the_five_steps():
    headings = re.findall(r"^# (\d)\. (\w+)", SCRIPT.read_text(), re.M)
    verbs = "Load", "Prepare", "Define", "Evaluate", "Present"
    assert headings == list(zip("12345", verbs, strict=True))


def test_network_is_that_of_baseline3():
    plain, ours = in_one_file.define_model(), vgg(blocks=3)
    for left, right in zip(plain.layers, ours.layers[1:], strict=True):
        assert type(left) is type(right)
        configs = left.get_config(), right.get_config()
        assert {**configs[0], "name": None} == {**configs[1], "name": None}
    assert plain.count_params() == ours.count_params() == 550_570
    settings = [{**model.optimizer.get_config(), "name": None} for model in (plain, ours)]
    assert settings[0] == settings[1]
    assert plain.loss == ours.loss


def test_images_and_labels_of_the_sample(sample):
    trainX, trainY, testX, testY = in_one_file.load_dataset(in_one_file.SAMPLE)
    np.testing.assert_array_equal(trainX, sample.x_train)
    np.testing.assert_array_equal(testX, sample.x_test)
    np.testing.assert_array_equal(trainY.argmax(axis=1), sample.y_train)
    assert testY.shape == (250, 10)
    train, test = in_one_file.prep_pixels(trainX, testX)
    assert train.dtype == test.dtype == np.float32 and train.max() == 1


def test_images_are_downloaded_where_no_other_script_has(tmp_path, sample, monkeypatch):
    arrays = (sample.x_train, sample.y_train), (sample.x_test, sample.y_test)
    monkeypatch.setattr(keras.datasets.cifar10, "load_data", lambda: arrays)
    trainX, trainY, _, _ = in_one_file.load_dataset(tmp_path / "missing.npz")
    assert trainX.shape == (1000, 32, 32, 3) and trainY.shape == (1000, 10)


@pytest.fixture
def few(sample, tmp_path):
    """Twenty images to train on and ten to test on, as the sample's file has them."""
    np.savez(
        tmp_path / "few.npz",
        x_train=sample.x_train[:20], y_train=sample.y_train[:20],
        x_test=sample.x_test[:20], y_test=sample.y_test[:20],
    )  # fmt: skip
    return tmp_path / "few.npz"


def test_script_trains_and_draws_two_panels(few, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["in_one_file.py", "--sample"])
    monkeypatch.setattr(sys, "path", sys.path[:])
    load, fit = np.load, keras.Model.fit
    monkeypatch.setattr(np, "load", lambda path: load(few))
    seen = {}

    def few_epochs(model, *arguments, epochs, batch_size, **options):
        seen.update(epochs=epochs, batch_size=batch_size)
        return fit(model, *arguments, epochs=2, batch_size=batch_size, **options)

    monkeypatch.setattr(keras.Model, "fit", few_epochs)
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert seen == {"epochs": 20, "batch_size": 16}
    printed = capsys.readouterr().out
    assert re.search(r"^> \d+\.\d{3}$", printed, re.M)

    picture = tmp_path / re.search(r"^Learning curves: (.*in_one_file\.png)$", printed, re.M)[1]
    pixels = np.asarray(Image.open(picture).convert("RGB"))
    assert {(0, 0, 255), (255, 165, 0)} <= colours(picture)
    rows = np.flatnonzero((pixels == (0, 0, 255)).all(axis=2).any(axis=1))
    middle = len(pixels) / 2  # a panel above it, and one below
    assert rows.min() < middle < rows.max()


def test_folder_that_can_not_be_made_is_told_before_the_training(few, tmp_path, monkeypatch):
    (tmp_path / "runs").write_text("in the way")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["in_one_file.py", "--sample"])
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(keras.Model, "fit", lambda *_, **__: pytest.fail("trains"))
    with pytest.raises(FileExistsError):
        runpy.run_path(str(SCRIPT), run_name="__main__")


def test_images_that_can_not_be_loaded_are_told_in_one_line(tmp_path, monkeypatch):
    cache = tmp_path / ".keras/datasets/cifar10-verified.npz"
    cache.parent.mkdir(parents=True)
    cache.write_bytes(b"damaged")
    monkeypatch.setenv("HOME", str(tmp_path))
    ended = call("experiments/in_one_file.py", cwd=tmp_path)
    assert_refused(ended, "in_one_file.py: error: CIFAR-10 could not be loaded", "--sample")


def test_settings_for_other_projects_are_not_taken(tmp_path, monkeypatch):
    settings = {"MPLBACKEND": "nonsense", "KERAS_BACKEND": "nonsense"}
    ended = run("experiments/in_one_file.py", "--help", cwd=tmp_path, **settings)
    assert ended.code == 0 and "--sample" in ended.output, ended.errors
    monkeypatch.setitem(plt.rcParams, "text.usetex", True)
    history = keras.callbacks.History()
    history.epoch = [0]
    history.history = {f"{a}{b}": [0.5] for a in ("", "val_") for b in ("loss", "accuracy")}
    in_one_file.summarize_diagnostics(history, tmp_path / "curves.png")
    assert len(colours(tmp_path / "curves.png")) > 2
