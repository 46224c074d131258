import json
import os
import resource
import subprocess
import sys
import zipfile
import zlib

from conftest import (
    a_result,
    assert_refused,
    call,
    red_and_blue,
    rewritten_weights,
    rewritten_zip,
    tiny_network,
)
from data.dataset import CLASS_NAMES
from data.image import DEER
from experiments import load_experiment
from machinery import final_model
from machinery.errors import UsageError
from machinery.final_model import keep_earlier_model, load_final_model, save_final_model
from machinery.loading import load_model
from machinery.networks import Network
from models.pretrained import pretrained_vgg16

import h5py
import keras
import numpy as np
import pytest

RESULT = a_result("baseline3", 7, "on the sample")


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_saved_model_predicts_the_same_and_knows_its_training(tmp_path, photos, capsys, suffix):
    model = tiny_network()
    save_final_model(model, RESULT, tmp_path / f"model.{suffix}")
    loaded, training = load_final_model(tmp_path / f"model.{suffix}")
    np.testing.assert_array_equal(
        loaded.predict(photos, verbose=0), model.predict(photos, verbose=0)
    )
    assert training == RESULT | {"dataset": {"class_names": list(CLASS_NAMES)}}
    assert "baseline3, 7 epochs" in capsys.readouterr().out


def too_sure(path):
    """A model whose weights are numbers, but what it makes of a photo is none."""
    model = red_and_blue()
    model.set_weights([3e38 * weights for weights in model.get_weights()])
    save_final_model(model, RESULT, path)


@pytest.mark.parametrize("arguments", [["predict.py"], ["explain.py"], ["evaluate.py", "--sample"]])
def test_answers_that_are_no_probabilities_are_refused(tmp_path, arguments):
    too_sure(tmp_path / "final_model.h5")
    ended = call(*arguments, cwd=tmp_path)
    assert_refused(ended, "final_model.h5: damaged or foreign (what it puts out is no probab")


def test_page_refuses_answers_that_are_no_probabilities(tmp_path):
    too_sure(tmp_path / "model.h5")
    network = Network(tmp_path / "model.h5")
    with pytest.raises(UsageError, match=r"model\.h5: .*what it puts out is no probabilities"):
        network.ask(DEER)


@pytest.mark.parametrize("command", ["predict.py", "explain.py"])
def test_classes_too_many_to_be_listed_are_counted(tmp_path, command):
    names = [f"species {number}" for number in range(1_234)]
    training = RESULT | {"dataset": {"class_names": names}}
    save_final_model(tiny_network(classes=1_234), training, tmp_path / "final_model.h5")
    ended = call(command, cwd=tmp_path)
    assert_refused(ended, "knows species 0, species 1, ", "species 19 and 1,214 more: name")
    assert "species 20" not in ended.errors


IN_A_NOTEBOOK = """
import sys, keras, numpy as np
photos = np.load("photos.npy")
for path in sys.argv[1:]:
    np.save(path + ".npy", keras.saving.load_model(path).predict(photos, verbose=0))
"""


def test_any_experiments_model_is_loaded_by_plain_keras(tmp_path, photos):
    """In a process that knows nothing of this project."""
    np.save(tmp_path / "photos.npy", photos[:8])
    expected = {}
    for name in ("speedrun", "transfer_vgg16", "random_erasing", "cyclical_learning_rate"):
        if name == "transfer_vgg16":
            model = pretrained_vgg16((32, 32, 3), 10, None, trainable=False, learning_rate=0.001)
        else:
            experiment = load_experiment(name)
            model = experiment.define_model()
            if experiment.learning_rate:
                model.optimizer.learning_rate = experiment.learning_rate(4, 2)
        for suffix in ("h5", "keras"):
            expected[f"{name}.{suffix}"] = model.predict(photos[:8], verbose=0)
            save_final_model(model, RESULT, tmp_path / f"{name}.{suffix}")
    command = [sys.executable, "-c", IN_A_NOTEBOOK, *expected]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    for path, probabilities in expected.items():
        np.testing.assert_allclose(np.load(tmp_path / f"{path}.npy"), probabilities, atol=1e-5)


def make_foreign(path):
    """Write something under the name of a model; what it is says the name."""
    match path.stem:
        case "small":
            small = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10)])
            save_final_model(small, RESULT, path)
        case "text":
            path.write_text("not a model")
        case "empty":
            path.write_bytes(b"")
        case "keras":
            tiny_network().save(path)
        case "cut":
            save_final_model(tiny_network(), RESULT, path)
            path.write_bytes(path.read_bytes()[:20_000])
        case "another_result":
            save_final_model(tiny_network(), {"settings": 7}, path)
        case "no_config" | "nonsense_config" | "outside" | "soft_link":
            save_final_model(tiny_network(), RESULT, path)
            with h5py.File(path, "a") as file:
                if path.stem == "no_config":
                    del file.attrs["model_config"]
                elif path.stem == "nonsense_config":
                    file.attrs["model_config"] = '{"class_name": "os.system", "config": ["ls"]}'
                else:
                    del file["model_weights"]
                    other = str(path.with_name("other.h5"))
                    tiny_network().save(other)
                    file["model_weights"] = (
                        h5py.ExternalLink(other, "/model_weights")
                        if path.stem == "outside"
                        else h5py.SoftLink("/elsewhere")
                    )
        case "bomb":
            save_final_model(tiny_network(), RESULT, path)
            with h5py.File(path, "a") as file:
                names = []
                file.visit(names.append)
                (kernel,) = (name for name in names if name.endswith("dense/kernel"))
                del file[kernel]
                file.create_dataset(kernel, (2**20, 2**14), "f4", chunks=(1024, 1024))


FOREIGN = (
    "small", "text", "empty", "keras", "cut", "another_result", "no_config", "nonsense_config",
    "outside", "soft_link", "bomb",
)  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_damaged_and_hostile_models_are_refused(tmp_path, name):
    path = tmp_path / f"{name}.h5"
    make_foreign(path)
    with pytest.raises(UsageError, match=rf"{name}\.h5: damaged or foreign \(") as refusal:
        load_final_model(path)
    assert "\n" not in str(refusal.value)


def compressed(file):
    """An array of 1,000 numbers whose only chunk unpacks to 500 MB."""
    array = file.create_dataset("more", 1000, "f4", chunks=1000, compression="gzip")
    packer = zlib.compressobj(1)
    packed = b"".join(packer.compress(bytes(2**20)) for _ in range(500)) + packer.flush()
    array.id.write_direct_chunk((0,), packed)


def virtual(file):
    layout = h5py.VirtualLayout((1000,), "f4")
    layout[:] = h5py.VirtualSource("other.h5", "values", (1000,))
    file.create_virtual_dataset("more", layout)


NOT_IN_THE_FILE = {
    "missing": (  # Keras itself refuses 4 GB and more
        lambda file: file.create_dataset("more", (30_000, 30_000), "f4", chunks=(1000, 1000)),
        "claims larger arrays than are in it",
    ),
    "compressed": (compressed, "its array more is compressed"),
    "external": (
        lambda file: file.create_dataset("more", 1000, "f4", external="/dev/zero"),
        "its array more is in another file",
    ),
    "virtual": (virtual, "its array more is in another file"),
}


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("kind", NOT_IN_THE_FILE)
def test_arrays_that_are_not_in_the_file_are_not_read(tmp_path, suffix, kind):
    add_array, reason = NOT_IN_THE_FILE[kind]
    path = tmp_path / f"model.{suffix}"
    save_final_model(tiny_network(), RESULT, path)
    with rewritten_weights(path) if suffix == "keras" else h5py.File(path, "a") as file:
        add_array(file)
    with pytest.raises(UsageError, match=reason):
        load_final_model(path)


def test_keras_file_is_read_as_a_zip_whatever_it_begins_with(tmp_path):
    """As Keras does: a zip is told by its end, HDF5 by its beginning."""
    save_final_model(tiny_network(), RESULT, tmp_path / "good.keras")
    with h5py.File(tmp_path / "both.keras", "w") as file:
        file.attrs["anything"] = "text"
    with (
        zipfile.ZipFile(tmp_path / "good.keras") as good,
        zipfile.ZipFile(tmp_path / "both.keras", "a", zipfile.ZIP_DEFLATED) as both,
    ):
        for name in good.namelist():
            both.writestr(name, good.read(name))
        both.writestr("more.json", 11_000_000 * " ")
    with pytest.raises(UsageError, match=r"more\.json is longer than 10,000,000 bytes"):
        load_final_model(tmp_path / "both.keras")


def test_weights_in_a_format_of_numpys_are_not_read(tmp_path):
    """Keras writes them in HDF5, and would read `model.weights.npz`, unchecked."""
    save_final_model(tiny_network(), RESULT, tmp_path / "model.keras")
    with rewritten_zip(tmp_path / "model.keras") as members:
        members["model.weights.npz"] = members.pop("model.weights.h5")
    with pytest.raises(UsageError, match=r"model\.weights\.h5 is missing"):
        load_final_model(tmp_path / "model.keras")


def test_memory_is_limited_while_a_model_is_made_and_asked(tmp_path, monkeypatch):
    save_final_model(tiny_network(), RESULT, tmp_path / "model.h5")
    limits = []

    def watched(function):
        def call(*arguments, **options):
            limits.append(resource.getrlimit(resource.RLIMIT_DATA)[0])
            return function(*arguments, **options)

        return call

    monkeypatch.setattr(keras.saving, "load_model", watched(keras.saving.load_model))
    load_model(tmp_path / "model.h5")
    name = "require_probabilities"  # of its answer to a black image
    monkeypatch.setattr(final_model, name, watched(getattr(final_model, name)))
    load_final_model(tmp_path / "model.h5")
    assert len(limits) == 3 and resource.RLIM_INFINITY not in limits


def test_settings_that_unpack_to_gigabytes_are_not_read(tmp_path):
    path = tmp_path / "model.keras"
    save_final_model(tiny_network(), RESULT, path)
    with rewritten_zip(path) as members:
        members["more.json"] = 11_000_000 * " "
    with pytest.raises(UsageError, match=r"more\.json is longer than 10,000,000 bytes"):
        load_final_model(path)


@pytest.mark.parametrize("size", [None, 520])
def test_model_for_images_of_no_or_a_huge_size_is_refused(tmp_path, size):
    inputs = keras.Input((size, size, 3))
    x = keras.layers.GlobalAveragePooling2D()(inputs)
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
    save_final_model(model, RESULT, tmp_path / "model.h5")
    with pytest.raises(UsageError, match="its images are not of up to 512 pixels"):
        load_final_model(tmp_path / "model.h5")


def attention(x):
    """Every value of an image with every other one: what a layer computes within itself."""
    return keras.layers.Attention()([keras.layers.Reshape((-1, 1))(x)] * 2)


HUGE = {
    "operation": lambda x: keras.ops.tile(x, (1, 1000, 1000, 1)),
    "layer": lambda x: keras.layers.UpSampling2D(1000)(x),
    "within a layer": attention,
}


@pytest.mark.parametrize("kind", HUGE)
def test_model_that_computes_too_much_is_refused_before_it_is_asked(tmp_path, kind):
    inputs = keras.Input((96, 96, 3))
    x = HUGE[kind](inputs)
    x = keras.ops.mean(x, axis=tuple(range(1, len(x.shape) - 1)))
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
    save_final_model(model, RESULT, tmp_path / "model.keras")
    with pytest.raises(UsageError, match=r"model\.keras: .*it computes too much for one image"):
        load_final_model(tmp_path / "model.keras")


@pytest.mark.parametrize("name", ["result", "model_config"])
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (["[]", "[]"], "is no text"),
        (3, "is no text"),
        (11_000_000 * " ", "is longer than"),
    ],
)
def test_texts_that_take_too_much_memory_are_refused(tmp_path, name, text, reason):
    save_final_model(tiny_network(), RESULT, tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        del file.attrs[name]
        file.attrs[name] = text
    with pytest.raises(UsageError, match=rf"model\.h5: .*its {name} {reason}"):
        load_final_model(tmp_path / "model.h5")


def test_model_whose_weights_are_no_numbers_is_refused(tmp_path):
    save_final_model(tiny_network(), RESULT, tmp_path / "model.h5")
    with h5py.File(tmp_path / "model.h5", "a") as file:
        weights = []
        file.visititems(lambda _, item: weights.append(item) if hasattr(item, "shape") else None)
        weights[0][:] = np.nan
    with pytest.raises(UsageError, match="weights are no numbers"):
        load_final_model(tmp_path / "model.h5")


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        ({"cat": 1, "dog": 2}, "no list of two classes or more"),
        (["cat"], "no list of two classes or more"),
        ("cat", "no list of two classes or more"),
        (["cat", 7], "the class 7 has characters"),
        (["cat", "cat"], "two of its classes have the same name"),
        (["cat", " "], "one has none"),
        (["cat", "\x1b[2J"], r"the class '\\x1b\[2J' has characters"),
    ],
)
def test_names_that_are_no_list_of_classes_are_refused(tmp_path, names, reason):
    result = RESULT | {"dataset": {"class_names": names}}
    save_final_model(tiny_network(), result, tmp_path / "model.h5")
    with pytest.raises(UsageError, match=reason):
        load_final_model(tmp_path / "model.h5")


@pytest.mark.parametrize("activation", ["linear", "sigmoid", "log_softmax"])
def test_model_that_puts_out_no_probabilities_is_refused(tmp_path, activation):
    model = tiny_network()
    model.layers[-1].activation = keras.activations.get(activation)
    model.layers[-1].bias.assign(np.ones(10))
    save_final_model(model, RESULT, tmp_path / "model.h5")
    with pytest.raises(UsageError, match="no probabilities"):
        load_final_model(tmp_path / "model.h5")


def test_layers_that_are_too_large_for_the_file_are_not_made(tmp_path):
    path = tmp_path / "model.h5"
    save_final_model(tiny_network(), RESULT, path)
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        dense = config["config"]["layers"][3]
        assert dense["class_name"] == "Dense"
        dense["config"]["units"] = 10_000
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(UsageError, match=r"model\.h5: .*more than [\d,]+ weights"):
        load_final_model(path)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
@pytest.mark.parametrize("nested", ["no", "yes", "of any size"])
def test_layers_that_compute_too_much_are_not_called(tmp_path, suffix, nested):
    """13 numbers in the file, 110 GB in memory."""
    image = keras.Input((32, 32, 3))
    inputs = keras.Input((None, None, 3)) if nested == "of any size" else image
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.UpSampling2D(3000)(inputs))
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax")(x))
    if nested != "no":
        model = keras.Model(image, model(image))
    path = tmp_path / f"model.{suffix}"
    save_final_model(model, RESULT, path)
    with pytest.raises(UsageError, match=rf"model\.{suffix}: damaged or foreign"):
        load_final_model(path)


def test_layers_of_ones_own_are_as_large_as_before_once_a_model_was_refused(tmp_path):
    (tmp_path / "model.h5").write_text("not a model")
    with pytest.raises(UsageError):
        load_final_model(tmp_path / "model.h5")
    assert tiny_network(units=1000).count_params() > 200_000


def test_model_that_is_too_long_is_not_read(tmp_path):
    path = tmp_path / "model.h5"
    save_final_model(tiny_network(), RESULT, path)
    with open(path, "r+b") as file:
        file.truncate(2_000_000_001)
    with pytest.raises(UsageError, match="longer than the 2,000,000,000 bytes"):
        load_final_model(path)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_layers_that_hold_code_are_refused(tmp_path, photos, suffix):
    inputs = keras.Input((32, 32, 3))
    outputs = keras.layers.Lambda(lambda x: keras.ops.mean(x, axis=(1, 2)))(inputs)
    path = tmp_path / f"code.{suffix}"
    save_final_model(keras.Model(inputs, keras.layers.Dense(10)(outputs)), RESULT, path)
    with pytest.raises(UsageError, match=rf"code\.{suffix}: damaged or foreign"):
        load_final_model(path)


def test_model_whose_training_has_failed_does_not_replace_a_good_one(tmp_path):
    (tmp_path / "model.h5").write_text("good")
    model = tiny_network()
    model.set_weights([np.nan * weights for weights in model.get_weights()])
    with pytest.raises(UsageError, match=r"no numbers any more: .*model\.h5 is not written"):
        save_final_model(model, RESULT, tmp_path / "model.h5")
    assert (tmp_path / "model.h5").read_text() == "good"


WRITE = """
import h5py, sys, time
with h5py.File(sys.argv[1], "a"):
    print("open", flush=True)
    time.sleep(100)
"""


def test_model_that_is_just_being_written_is_not_called_damaged(tmp_path):
    path = tmp_path / "model.h5"
    save_final_model(tiny_network(), RESULT, path)
    command = [sys.executable, "-c", WRITE, path]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout.readline() == b"open\n"
            with pytest.raises(UsageError, match="in use by another program"):
                load_final_model(path)
        finally:
            process.kill()


def test_each_earlier_model_is_kept(tmp_path):
    path = tmp_path / "model.h5"
    for content in ("first", "second"):
        path.write_text(content)
        os.utime(path, (0, 0))
        kept = keep_earlier_model(path)
        assert kept.read_text() == content and path.read_text() == content
    assert sorted(file.read_text() for file in (tmp_path / "earlier").iterdir()) == [
        "first", "second"
    ]  # fmt: skip


def test_missing_model_is_explained(tmp_path):
    told = r"no model .*missing\.h5: .*finalize.py --model .*missing\.h5 --sample"
    with pytest.raises(UsageError, match=told):
        load_final_model(tmp_path / "missing.h5")


def test_interrupted_saving_leaves_the_earlier_model(tmp_path, monkeypatch):
    (tmp_path / "model.h5").write_text("earlier")
    model = tiny_network()
    with pytest.raises(TypeError):
        save_final_model(model, {"not": object()}, tmp_path / "model.h5")
    assert (tmp_path / "model.h5").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 1
