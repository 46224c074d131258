import zipfile

from conftest import tiny_network
from machinery import checkpoint
from machinery.checkpoint import load_checkpoint, save_checkpoint

import keras
import numpy as np
import pytest


@pytest.fixture
def model(photos, sample):
    """A network and an optimizer that have learned something."""
    model = tiny_network(optimizer=keras.optimizers.SGD(0.01, momentum=0.9))
    model.fit(photos, keras.utils.to_categorical(sample.y_train[:64], 10), verbose=0)
    return model


def test_model_and_optimizer_survive(tmp_path, model, photos):
    save_checkpoint(tmp_path / "run.keras", model, {}, [])
    loaded, _, _ = load_checkpoint(tmp_path / "run.keras")
    np.testing.assert_array_equal(loaded(photos), model(photos))
    for ours, theirs in zip(loaded.optimizer.variables, model.optimizer.variables, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.loss == model.loss


def test_record_and_states_of_callbacks_survive(tmp_path, model):
    weights = [np.arange(6, dtype=np.float32).reshape(2, 3), np.array(7)]
    plain = {"wait": 2, "best": np.float64(0.25), "name": "x", "losses": [0.5, {"array": 1}]}
    states = [plain, {}, {"kept": weights, "no": [], "one": {"weights": weights[0]}}]
    record = {"epochs_trained": 3, "stopped": False, "recipe": {"a.b": [1, "two", None]}}
    save_checkpoint(tmp_path / "run.keras", model, record, states)
    _, loaded_record, loaded = load_checkpoint(tmp_path / "run.keras")
    assert loaded_record == record
    assert loaded[0] == plain and loaded[1] == {}
    np.testing.assert_array_equal(loaded[2]["one"]["weights"], weights[0])
    assert loaded[2]["no"] == []
    for ours, theirs in zip(loaded[2]["kept"], weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
        assert ours.dtype == theirs.dtype


def test_checkpoint_is_an_archive_that_keras_can_load_without_us(tmp_path, model, photos):
    save_checkpoint(tmp_path / "run.keras", model, {}, [{"kept": [np.ones(3)]}])
    assert zipfile.ZipFile(tmp_path / "run.keras").testzip() is None
    loaded = keras.saving.load_model(tmp_path / "run.keras")
    np.testing.assert_array_equal(loaded(photos), model(photos))


def test_checkpoint_that_fails_halfway_leaves_the_earlier_one(tmp_path, model, monkeypatch):
    save_checkpoint(tmp_path / "run.keras", model, {"epochs_trained": 1}, [])

    def full(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(checkpoint.np, "save", full)
    with pytest.raises(OSError, match="disk full"):
        save_checkpoint(
            tmp_path / "run.keras", model, {"epochs_trained": 2}, [{"kept": np.ones(1)}]
        )
    assert load_checkpoint(tmp_path / "run.keras")[1] == {"epochs_trained": 1}
    assert len(list(tmp_path.iterdir())) == 1
