import io
import json
import zipfile

from conftest import rewritten_zip, tiny_network
from machinery import checkpoint
from machinery.checkpoint import load_checkpoint
from machinery.errors import UsageError

import keras
import numpy as np
import pytest


def save_checkpoint(path, *arguments):
    checkpoint.save_checkpoint(path, path.with_name("before.keras"), *arguments)


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
    with pytest.raises(UsageError, match="disk full"):
        save_checkpoint(
            tmp_path / "run.keras", model, {"epochs_trained": 2}, [{"kept": np.ones(1)}]
        )
    assert load_checkpoint(tmp_path / "run.keras")[1] == {"epochs_trained": 1}
    assert len(list(tmp_path.iterdir())) == 1


def test_checkpoint_before_is_kept(tmp_path, model):
    for epoch in (1, 2, 3):
        save_checkpoint(tmp_path / "run.keras", model, {"epochs_trained": epoch}, [])
    assert load_checkpoint(tmp_path / "run.keras")[1] == {"epochs_trained": 3}
    assert load_checkpoint(tmp_path / "before.keras")[1] == {"epochs_trained": 2}
    assert len(list(tmp_path.iterdir())) == 2


def test_checkpoint_that_cannot_be_read_back_replaces_nothing(tmp_path, model, monkeypatch):
    save_checkpoint(tmp_path / "run.keras", model, {"epochs_trained": 1}, [])
    save_model = type(model).save

    def save_badly(self, path):
        save_model(self, path)
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    monkeypatch.setattr(type(model), "save", save_badly)
    with pytest.raises(UsageError, match="damaged"):
        save_checkpoint(tmp_path / "run.keras", model, {"epochs_trained": 2}, [])
    assert load_checkpoint(tmp_path / "run.keras")[1] == {"epochs_trained": 1}
    assert len(list(tmp_path.iterdir())) == 1


def change(path, what):
    """Damage a checkpoint, or replace it by something else."""
    content = path.read_bytes()
    match what:
        case "missing":
            path.unlink()
        case "empty":
            path.write_bytes(b"")
        case "zeros":  # what a power loss leaves of a file that was not synchronized
            path.write_bytes(bytes(len(content)))
        case "cut":
            path.write_bytes(content[: len(content) // 2])
        case "bit":
            path.write_bytes(content[:3000] + bytes([content[3000] ^ 1]) + content[3001:])
        case "text":
            path.write_text("not a checkpoint")
        case "folder":
            path.unlink()
            path.mkdir()
        case "model":
            tiny_network().save(path)
        case "pickle" | "claim" | "nested" | "number":
            array = io.BytesIO()
            np.save(array, np.array([print]) if what == "pickle" else np.zeros(4), True)
            array = array.getvalue()
            if what == "claim":
                array = array.replace(b"(4,), }      ", b"(40000000000,), }"[:13])
            record = b'{"callbacks": [{"dict": {"kept": {"array": 0}}}]}'
            record = {"nested": b"[" * 100_000, "number": b"7"}.get(what, record)
            tiny_network().save(path)
            with zipfile.ZipFile(path, "a") as archive:
                archive.writestr("run.json", record)
                archive.writestr("arrays/0.npy", array)
        case "bomb":
            with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                for number in range(21):
                    archive.writestr(f"{number}", bytes(10**8))


CHANGES = (
    "missing", "empty", "zeros", "cut", "bit", "text", "folder", "model", "pickle", "claim",
    "nested", "number", "bomb",
)  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_damaged_and_foreign_checkpoints_are_refused(tmp_path, model, what):
    save_checkpoint(tmp_path / "run.keras", model, {"epochs_trained": 1}, [])
    change(tmp_path / "run.keras", what)
    with pytest.raises(UsageError, match=r"run\.keras") as refusal:
        load_checkpoint(tmp_path / "run.keras")
    assert "\n" not in str(refusal.value)


def test_checkpoint_of_layers_that_hold_code_is_refused(tmp_path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs))
    save_checkpoint(tmp_path / "run.keras", model, {}, [])
    with pytest.raises(UsageError, match="damaged or foreign"):
        load_checkpoint(tmp_path / "run.keras")


def test_array_is_read_once(tmp_path, model):
    """A text of a few bytes could ask for it, and for the memory it takes, any number of times."""
    path = tmp_path / "run.keras"
    save_checkpoint(path, model, {}, [{"kept": np.ones(3)}])
    with rewritten_zip(path) as members:
        members["run.json"] = json.dumps({"callbacks": 2 * [{"dict": {"kept": {"array": 0}}}]})
    with pytest.raises(UsageError, match="its arrays are not in order"):
        load_checkpoint(path)


def test_layers_that_are_too_large_for_the_file_are_not_made(tmp_path, model):
    path = tmp_path / "run.keras"
    save_checkpoint(path, model, {}, [])
    with rewritten_zip(path) as members:
        config = json.loads(members["config.json"])
        dense = config["config"]["layers"][3]
        assert dense["class_name"] == "Dense"
        dense["config"]["units"] = 10_000
        members["config.json"] = json.dumps(config)
    with pytest.raises(UsageError, match=r"run\.keras: .*more than [\d,]+ weights"):
        load_checkpoint(path)


@pytest.mark.parametrize("name", ["run.json", "config.json", "metadata.json"])
def test_json_that_is_too_long_is_not_read(tmp_path, model, name):
    path = tmp_path / "run.keras"
    save_checkpoint(path, model, {}, [])
    with rewritten_zip(path) as members:
        members[name] += b" " * 10_000_000
    with pytest.raises(UsageError, match=f"{name} is longer than 10,000,000 bytes"):
        load_checkpoint(path)
