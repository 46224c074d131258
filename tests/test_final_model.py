from conftest import tiny_network
from machinery.errors import UsageError
from machinery.final_model import load_final_model, save_final_model

import keras
import numpy as np
import pytest

RESULT = {"settings": {"experiment": "baseline3", "epochs": 7}, "remark": "on the sample"}


def test_saved_model_predicts_the_same_and_knows_its_training(tmp_path, photos, capsys):
    model = tiny_network()
    save_final_model(model, RESULT, tmp_path / "model.h5")
    loaded, training = load_final_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(
        loaded.predict(photos, verbose=0), model.predict(photos, verbose=0)
    )
    assert training == RESULT
    assert "baseline3, 7 epochs" in capsys.readouterr().out


def test_saved_model_predicts_the_same_in_stock_keras(tmp_path, photos):
    model = tiny_network()
    save_final_model(model, RESULT, tmp_path / "model.h5")
    loaded = keras.saving.load_model(tmp_path / "model.h5")
    np.testing.assert_array_equal(
        loaded.predict(photos, verbose=0), model.predict(photos, verbose=0)
    )


@pytest.mark.parametrize("name", ["small.h5", "text.h5", "keras.h5"])
def test_foreign_models_are_refused(tmp_path, name):
    small = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
    save_final_model(small, RESULT, tmp_path / "small.h5")
    (tmp_path / "text.h5").write_text("not a model")
    tiny_network().save(tmp_path / "keras.h5")
    with pytest.raises(UsageError, match=f"{name} is not a model that finalize.py saved"):
        load_final_model(tmp_path / name)


def test_missing_model_is_explained(tmp_path):
    with pytest.raises(UsageError, match=r"no model .*missing\.h5: .*finalize.py --sample"):
        load_final_model(tmp_path / "missing.h5")


def test_interrupted_saving_leaves_the_earlier_model(tmp_path, monkeypatch):
    (tmp_path / "model.h5").write_text("earlier")
    model = tiny_network()
    with pytest.raises(TypeError):
        save_final_model(model, {"not": object()}, tmp_path / "model.h5")
    assert (tmp_path / "model.h5").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 1
