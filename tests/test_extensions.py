import copy
import sys
from pathlib import Path

import compare
import run_all
from conftest import (
    ROOT,
    TINY,
    a_result,
    assert_refused,
    call,
    ctrl_c_after,
    numbers,
    result,
    tiny_network,
    train,
)
from data.cifar10 import SAMPLE
from experiments import EXPERIMENTS, load_experiment, speedrun
from extensions import EXTENSIONS, FROM_SCRATCH
from extensions.cutmix import cut_and_mix
from extensions.cyclical_learning_rate import TriangularCycles
from harness import load_dataset
from machinery.final_model import load_final_model, save_final_model
from models import pretrained

import h5py
import keras
import numpy as np
import pytest
from keras import layers
from keras.src.legacy.saving import legacy_h5_format

TRANSFER = ("transfer_vgg16", "transfer_vgg16_tuned")  # from weights of ImageNet
HOLDOUT = ("reduce_on_plateau", "early_stopping")
NEVER = 10  # no loss falls by this much


def test_table_of_contents_is_complete():
    scripts = {path.stem for path in (ROOT / "extensions").glob("*.py")} - {"__init__"}
    assert sorted(EXTENSIONS) == sorted(scripts)
    assert set(EXTENSIONS) - set(FROM_SCRATCH) == {*TRANSFER, "transfer_shipped"}


def test_names_tell_the_rooms_apart():
    assert set(EXTENSIONS) & set(EXPERIMENTS) == set()


@pytest.mark.parametrize("name", EXTENSIONS)
def test_docstring_has_a_source_and_promises_no_accuracy_of_the_tutorials(name):
    experiment = load_experiment(name)
    told = sys.modules[f"extensions.{name}"].__doc__
    assert "\nIdea: " in told and "https://" in told
    assert "Published test accuracy" not in told and experiment.published_accuracy is None


# One change each.


def preprocessing_of(model):
    """The layers before the first convolution."""
    kinds = [type(layer).__name__ for layer in model.layers[1:]]
    return kinds[: kinds.index("Conv2D")]


def facts(experiment):
    """What there is to change in baseline3."""
    model = experiment.define_model()
    decays = [layer.kernel_regularizer for layer in model.layers if hasattr(layer, "kernel")]
    assert decays[-1] is None
    rates = [layer.rate for layer in model.layers if isinstance(layer, layers.Dropout)]
    return {
        "parameters": model.count_params(),
        "preprocessing": preprocessing_of(model),
        "optimizer": type(model.optimizer).__name__,
        "momentum": getattr(model.optimizer, "momentum", None),
        "learning rate": round(float(model.optimizer.learning_rate), 6),
        "schedule": type(experiment.learning_rate and experiment.learning_rate(10, 10)).__name__,
        "dropout": set(rates),
        "decay": {round(decay.l2, 6) if decay else None for decay in decays[:-1]},
        "callbacks": [type(callback).__name__ for callback in experiment.callbacks],
        "validation": experiment.validation,
        "batch size": experiment.batch_size,
        "epochs": experiment.epochs,
        "augment": experiment.augment,
    }


# A 3x3 convolution from a to b channels has (9a + 1)b parameters, a dense layer (a + 1)b.
FOUR = 550_570 - 2049 * 128 + 1153 * 256 + 2305 * 256 + 1025 * 128
FIVE = FOUR - 1025 * 128 + 2305 * 512 + 4609 * 512 + 513 * 128
ADAM = {"optimizer": "Adam", "momentum": None}
HELD_OUT = {"validation": "holdout"}
FLIP_AND_SHIFT = ["RandomFlip", "RandomTranslation"]
CHANGES = {
    "baseline4": {"parameters": FOUR},
    "baseline5": {"parameters": FIVE},
    "centering": {"preprocessing": ["Normalization"]},
    "standardization": {"preprocessing": ["Normalization"]},
    "learning_rate_01": {"learning rate": 0.01},
    "learning_rate_0001": {"learning rate": 0.0001},
    "adam": ADAM,
    "adamw": ADAM | {"optimizer": "AdamW"},
    "cyclical_learning_rate": {"schedule": "TriangularCycles"},
    "cyclical_learning_rate_adam": ADAM | {"schedule": "TriangularCycles"},
    "cosine_decay": {"schedule": "CosineDecay"},
    "reduce_on_plateau": HELD_OUT | {"callbacks": ["ReduceLROnPlateau"]},
    "early_stopping": HELD_OUT | {"callbacks": ["EarlyStopping"]},
    "dropout_30": {"dropout": {0.3}},
    "weight_decay_01": {"decay": {0.01}},
    "weight_decay_1": {"decay": {0.1}},
    "weight_decay_augmentation": {"decay": {0.001}, "preprocessing": FLIP_AND_SHIFT},
    "random_erasing": {"preprocessing": [*FLIP_AND_SHIFT, "RandomErasing"]},
    "cutmix": {"preprocessing": FLIP_AND_SHIFT, "augment": cut_and_mix},
    "batch_256": {"batch size": 256},
    "batch_256_scaled": {"batch size": 256, "learning rate": 0.004},
}


@pytest.mark.parametrize("name", FROM_SCRATCH)
def test_extension_is_baseline3_with_its_change(name):
    expected = facts(load_experiment("baseline3")) | CHANGES[name]
    assert facts(load_experiment(name)) == expected


def test_four_and_five_blocks_leave_2x2_pixels_and_one():
    for name, left in (("baseline4", (2, 2, 256)), ("baseline5", (1, 1, 512))):
        model = load_experiment(name).define_model()
        (flatten,) = (layer for layer in model.layers if isinstance(layer, layers.Flatten))
        assert flatten.input.shape == (None, *left)


def test_erasing_hides_a_rectangle_of_every_second_image(photos):
    (erase,) = (
        layer
        for layer in load_experiment("random_erasing").define_model().layers
        if isinstance(layer, layers.RandomErasing)
    )
    changed = (np.abs(erase(photos, training=True) - photos) > 1e-6).any(axis=(1, 2, 3))
    assert 0.25 < changed.mean() < 0.75
    np.testing.assert_array_equal(erase(photos, training=False), photos)


def test_cutmix_labels_an_image_by_the_pixels_that_it_shows():
    """Of images that show nothing but their own number."""
    images = np.broadcast_to(np.arange(20.0)[:, None, None, None], (20, 32, 32, 3))
    labels = np.eye(20, dtype=np.float32)
    mixed, told = cut_and_mix(images, labels, np.arange(20), 0, np.random.default_rng(0))
    shown = np.array([np.bincount(np.ravel(image).astype(int), minlength=20) for image in mixed])
    assert ((shown > 0).sum(axis=1) == 2).any()
    # A rectangle's edges lie between pixels, so shares are off by up to a row and a column.
    np.testing.assert_allclose(told, shown / images[0].size, atol=2 / 32 + 1e-3)


def test_cutmix_draws_what_the_batch_is_told_to_draw(photos):
    def mixed(seed):
        indices = np.arange(len(photos))
        labels = np.eye(len(photos), dtype=np.float32)
        images, _ = cut_and_mix(photos, labels, indices, 0, np.random.default_rng(seed))
        return np.array(images)

    np.testing.assert_array_equal(mixed(1), mixed(1))
    assert (mixed(1) != mixed(2)).any()


# As scripts.


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of VGG-16 that have learned nothing, in the format of Keras's download."""
    path = tmp_path_factory.mktemp("weights") / "vgg16_notop.h5"
    keras.utils.set_random_seed(0)
    vgg16 = keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3))
    with h5py.File(path, "w") as file:
        legacy_h5_format.save_weights_to_hdf5_group(file, vgg16)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("extensions")


@pytest.mark.parametrize("name", EXTENSIONS)
def test_extension_leaves_curves_numbers_and_result(folder, weights, name):
    given = ("--weights", weights) if name in TRANSFER else ()
    ended = call(f"extensions/{name}.py", *TINY, "--epochs", 1, *given, cwd=folder)
    assert ended.code == 0, ended.errors
    assert f"Next:            python {ROOT}/compare.py\n" in ended.output
    for suffix in ("png", "csv", "json"):
        assert f"runs/{name}.{suffix}" in ended.output
        assert (folder / "runs" / f"{name}.{suffix}").exists()
    recorded = result(folder / "runs" / f"{name}.json")
    assert recorded["settings"]["validation"] == ("holdout" if name in HOLDOUT else "test")
    assert recorded["settings"]["batch_size"] == load_experiment(name).batch_size // 4
    (row,) = numbers(folder / "runs" / f"{name}.csv")
    assert ("validation_loss" in row) == (name in HOLDOUT)
    assert np.isfinite(float(row["train_loss"]))


def test_runs_are_compared_in_the_order_of_the_table(folder):
    names = [row.name for row in compare.read_runs([folder / "runs"])]
    assert names == [name for name in EXTENSIONS if name in names]


def test_runner_sees_that_a_run_is_finished(folder, sample, monkeypatch):
    """Though what early_stopping is evaluated on is not the default."""
    monkeypatch.chdir(folder)

    def is_finished(*more, sha256=sample.sha256):
        arguments = [str(word) for word in (*TINY, "--epochs", 1, *more)]
        return run_all.Job("early_stopping", 0, None, arguments, sha256).is_finished()

    assert is_finished()
    assert not is_finished("--validation", "test")
    assert not is_finished(sha256=sample.sha256 | {"x_train": "of other images"})


def test_runner_starts_the_script_where_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(run_all, "operations_per_image", lambda model: 1)
    started = []
    monkeypatch.setattr(run_all.subprocess, "Popen", lambda words, **_: started.append(words[1]))
    for name in ("baseline1", "adam"):
        run_all.Job(name, 0, None, [], {}).start(run_all.Cores({0}))
    assert started == [str(ROOT / "experiments/baseline1.py"), str(ROOT / "extensions/adam.py")]


def test_runner_starts_a_variant_of_the_speed_run_by_its_options(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    started = []
    monkeypatch.setattr(run_all.subprocess, "Popen", lambda words, **_: started.extend(words[1:]))
    run_all.Job("speedrun_without_shift", 0, None, [], {}).start(run_all.Cores({0}))
    words = ["--without", "shift", "--seed", "0"]
    assert started == [str(ROOT / "experiments/speedrun.py"), *words]


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["extensions"], FROM_SCRATCH),
        (["all", "adam", "extensions"], (*EXPERIMENTS, "adam", *FROM_SCRATCH)),
        (["transfer_vgg16"], ("transfer_vgg16",)),
        (["speedrun_94_without_tta"], ("speedrun_94_without_tta",)),
        (["ablation"], ("speedrun", *(f"speedrun_without_{idea}" for idea in speedrun.IDEAS))),
    ],
)
def test_runner_knows_the_extensions(tmp_path, monkeypatch, words, meant):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["run_all.py", *words])
    options, _ = run_all.parse_command_line()
    assert list(options.experiments) == list(dict.fromkeys(meant))


# Pixel scaling.


def scaled(name, images):
    """The pixels that the first convolution sees."""
    model = load_experiment(name).define_model()
    return model.layers[1](images).numpy()


@pytest.mark.parametrize("name", ["centering", "standardization"])
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_pixels_have_mean_0_and_if_standardized_deviation_1(sample, name, policy):
    keras.config.set_dtype_policy(policy)
    images = sample.x_train.astype(np.float32) / 255
    pixels = scaled(name, images)
    assert pixels.dtype == np.float32
    deviations = images.std(axis=(0, 1, 2)) if name == "centering" else 1
    # The constants are those of all 50,000 training images.
    np.testing.assert_allclose(pixels.mean(axis=(0, 1, 2)), 0, atol=0.05)
    np.testing.assert_allclose(pixels.std(axis=(0, 1, 2)), deviations, rtol=0.05)


@pytest.mark.dataset
def test_constants_are_those_of_the_training_images():
    trainX = load_dataset()[0]
    values = np.arange(256)
    for colour in range(3):
        counts = np.bincount(trainX[..., colour].ravel(), minlength=256)
        mean = np.average(values, weights=counts)
        deviation = np.sqrt(np.average((values - mean) ** 2, weights=counts))
        image = np.full((1, 32, 32, 3), (mean + deviation) / 255, np.float32)
        centered, standardized = (
            scaled(name, image)[0, 0, 0, colour] for name in ("centering", "standardization")
        )
        assert centered == pytest.approx(deviation / 255, abs=1e-4)
        assert standardized == pytest.approx(1, abs=1e-3)


def test_saved_model_scales_the_pixels_itself(tmp_path, photos):
    arguments = (*TINY, "--epochs", 1, "--experiment", "standardization")
    ended = call("finalize.py", *arguments, cwd=tmp_path)
    assert ended.code == 0, ended.errors
    model, _ = load_final_model(tmp_path / "final_model.h5")
    np.testing.assert_allclose(
        model.layers[1](photos), scaled("standardization", photos), atol=1e-5
    )


# Learning rates.


class Watch(keras.callbacks.Callback):
    """Notes the learning rate of every step."""

    def on_train_begin(self, logs=None):
        self.rates = []

    def on_train_batch_begin(self, batch, logs=None):
        self.rates.append(float(self.model.optimizer.learning_rate))


def rates_of(name, *arguments, cwd):
    """The learning rates of the steps of an experiment's training, of a tiny network."""
    watch = Watch()
    experiment = load_experiment(name)._replace(define_model=tiny_network, callbacks=(watch,))
    ended = train(experiment, "--sample", *arguments, cwd=cwd)
    assert ended.code == 0, ended.errors
    return watch.rates


def test_triangle_rises_and_falls():
    schedule = TriangularCycles(0.1, 0.5, cycle=8)
    rates = [float(schedule(step)) for step in range(17)]
    rise_and_fall = [0.1, 0.2, 0.3, 0.4, 0.5, 0.4, 0.3, 0.2]
    assert rates == pytest.approx([*rise_and_fall, *rise_and_fall, 0.1])


@pytest.mark.parametrize(
    ("name", "lowest", "highest"),
    [("cyclical_learning_rate", 0.001, 0.006), ("cyclical_learning_rate_adam", 0.00025, 0.001)],
)
def test_cycle_takes_four_epochs(tmp_path, name, lowest, highest):
    rates = rates_of(name, "--limit", 100, "--batch-size", 50, "--epochs", 8, cwd=tmp_path)
    assert len(rates) == 16
    expected = np.interp(np.arange(16) % 8, [0, 4, 8], [lowest, highest, lowest])
    assert rates == pytest.approx(expected.tolist(), rel=1e-4)


@pytest.mark.parametrize("epochs", [1, 4])
def test_cosine_warms_up_and_ends_near_0_however_long_the_training(tmp_path, epochs):
    arguments = ("--limit", 400, "--batch-size", 10, "--epochs", epochs)
    rates = np.array(rates_of("cosine_decay", *arguments, cwd=tmp_path))
    warmup = 2 * epochs  # a twentieth of the 40 steps of an epoch
    assert rates.argmax() == warmup and rates[warmup] == pytest.approx(0.01)
    np.testing.assert_allclose(rates[:warmup], np.linspace(0, 0.01, warmup, endpoint=False))
    assert (np.diff(rates[warmup:]) < 0).all()
    middle = warmup + (len(rates) - warmup) // 2
    assert rates[middle] == pytest.approx(0.005, abs=1e-5)
    assert 0 < rates[-1] < 2e-5


@pytest.mark.parametrize("name", ["cyclical_learning_rate", "cosine_decay"])
def test_schedule_goes_on_after_a_break(tmp_path, name):
    script, three = f"extensions/{name}.py", (*TINY, "--epochs", 3)
    assert call(script, *three, "--out", "whole", cwd=tmp_path).code == 0
    with ctrl_c_after(2):
        assert call(script, *three, cwd=tmp_path).code == 130
    resumed = call(script, *three, "--resume", cwd=tmp_path)
    assert "Resuming after epoch 2 of 3" in resumed.output, resumed.errors
    assert numbers(tmp_path / f"runs/{name}.csv") == numbers(tmp_path / f"whole/{name}.csv")


# What held-out images decide.


def impatient(name):
    """An experiment with a tiny network, whose callback takes every epoch but the first for bad."""
    experiment = load_experiment(name)
    (callback,) = experiment.callbacks
    assert (callback.monitor, callback.patience) == ("val_loss", 10)
    callback = copy.copy(callback)
    callback.patience, callback.min_delta = 1, NEVER
    return experiment._replace(define_model=tiny_network, callbacks=(callback,))


HUNDRED = ("--sample", "--limit", 100)


def test_early_stopping_restores_the_weights_of_the_best_epoch(tmp_path):
    experiment = impatient("early_stopping")
    results = []
    for epochs, callbacks in ((9, experiment.callbacks), (1, ()), (2, ())):
        arguments = (*HUNDRED, "--epochs", epochs, "--out", f"epochs_{epochs}")
        ended = train(experiment._replace(callbacks=callbacks), *arguments, cwd=tmp_path)
        assert ended.code == 0, ended.errors
        results.append(result(tmp_path / f"epochs_{epochs}" / "mine.json"))
    stopped, first, second = results
    assert stopped["epochs_trained"] == 2
    assert stopped["test_loss"] == first["test_loss"] != second["test_loss"]
    counts = [stopped["dataset"][f"{kind}_images"] for kind in ("training", "validation", "test")]
    assert counts == [90, 10, 20]


def test_learning_rate_is_divided_by_10_when_nothing_gets_better(tmp_path):
    watch = Watch()
    experiment = impatient("reduce_on_plateau")
    experiment = experiment._replace(callbacks=(*experiment.callbacks, watch))
    assert train(experiment, *TINY, "--epochs", 3, "--batch-size", 10, cwd=tmp_path).code == 0
    assert watch.rates == pytest.approx([0.01, 0.01, 0.001])


def test_option_overrides_what_an_experiment_is_evaluated_on(tmp_path):
    one = (*TINY, "--epochs", 1)
    for name, option in (("early_stopping", "test"), ("baseline4", "holdout")):
        experiment = load_experiment(name)._replace(define_model=tiny_network)
        assert train(experiment, *one, "--validation", option, name=name, cwd=tmp_path).code == 0
        assert result(tmp_path / f"runs/{name}.json")["settings"]["validation"] == option


# Batches.


@pytest.mark.parametrize("name", ["batch_256", "batch_256_scaled"])
def test_steps_are_256_images(tmp_path, name):
    watch = Watch()
    experiment = load_experiment(name)._replace(define_model=tiny_network, callbacks=(watch,))
    ended = train(experiment, "--data", SAMPLE, "--epochs", 1, cwd=tmp_path)
    assert "batch size: 256" in ended.output, ended.errors
    assert len(watch.rates) == 4  # of 1,000 images


# Transfer.


def transfer(name, weights):
    load_experiment(name)
    return sys.modules[f"extensions.{name}"].define_model(weights=str(weights))


def test_network_is_vgg16_with_new_layers(weights, photos):
    model = transfer("transfer_vgg16", weights)
    convolutions = [layer for layer in model.layers if isinstance(layer, layers.Conv2D)]
    assert len(convolutions) == 13
    given = keras.applications.VGG16(
        include_top=False, weights=str(weights), input_shape=(32, 32, 3)
    )
    for layer in convolutions[1:]:
        np.testing.assert_array_equal(layer.kernel, given.get_layer(layer.name).kernel)
    features = keras.Model(model.input, model.get_layer("block5_pool").output)
    expected = given.predict(keras.applications.vgg16.preprocess_input(255 * photos), verbose=0)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(features.predict(photos, verbose=0), expected, atol=1e-3)
    assert model.output_shape == (None, 10)


@pytest.mark.parametrize(("name", "learns"), [(TRANSFER[0], False), (TRANSFER[1], True)])
def test_convolutions_learn_only_if_they_are_tuned(weights, sample, photos, name, learns):
    model = transfer(name, weights)
    assert float(model.optimizer.learning_rate) == pytest.approx(1e-5 if learns else 1e-3)
    kernels = [layer.kernel for layer in model.layers if hasattr(layer, "kernel")]
    before = [kernel.numpy() for kernel in kernels]
    model.fit(photos[:20], keras.utils.to_categorical(sample.y_train[:20], 10), verbose=0)
    changed = [not np.array_equal(kernel, old) for kernel, old in zip(kernels, before, strict=True)]
    assert changed == [learns] * 13 + [True, True]


def test_resumed_transfer_needs_its_first_weights_no_more(tmp_path, weights):
    script, two = "extensions/transfer_vgg16.py", (*TINY, "--epochs", 2)
    whole = call(script, *two, "--weights", weights, "--out", "whole", cwd=tmp_path)
    assert whole.code == 0, whole.errors
    with ctrl_c_after(1):
        assert call(script, *two, "--weights", weights, cwd=tmp_path).code == 130
    other = tmp_path / "other.weights.h5"
    keras.utils.set_random_seed(1)
    keras.applications.VGG16(include_top=False, weights=None, input_shape=(32, 32, 3)).save_weights(
        other
    )
    resumed = call(script, *two, "--weights", other, "--resume", cwd=tmp_path)
    assert "Resuming after epoch 1 of 2" in resumed.output, resumed.errors
    name = "transfer_vgg16.csv"
    assert numbers(tmp_path / "runs" / name) == numbers(tmp_path / "whole" / name)


def test_transferred_model_is_saved_and_loaded(tmp_path, weights, photos):
    model = transfer("transfer_vgg16", weights)
    before = model.predict(photos, verbose=0)
    save_final_model(model, a_result("transfer_vgg16", 20), tmp_path / "final_model.h5")
    loaded, _ = load_final_model(tmp_path / "final_model.h5")
    np.testing.assert_allclose(loaded.predict(photos, verbose=0), before, atol=1e-5)


@pytest.mark.parametrize("script", [f"extensions/{name}.py" for name in TRANSFER])
def test_missing_weights_are_told_in_one_line(tmp_path, monkeypatch, script):
    one = (*TINY, "--epochs", 1)
    monkeypatch.setattr(pretrained, "KERAS_HOME", tmp_path)  # where nothing is cached
    ended = call(script, *one, cwd=tmp_path)
    assert_refused(
        ended, "can't download", "URL fetch failure", "notop.h5 elsewhere and put", "models"
    )
    ended = call(script, *one, "--weights", "nowhere.h5", cwd=tmp_path)
    assert_refused(ended, "there is no file nowhere.h5")


def test_download_that_broke_off_is_not_taken_for_the_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrained, "KERAS_HOME", tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / Path(pretrained.VGG16_WEIGHTS).name).write_text("half of it")
    ended = call("extensions/transfer_vgg16.py", *TINY, "--epochs", 1, cwd=tmp_path)
    assert_refused(ended, "URL fetch failure")  # of the second try


def test_weights_of_something_else_are_told_in_one_line(tmp_path):
    arguments = ("extensions/transfer_vgg16.py", *TINY, "--epochs", 1, "--weights")
    (tmp_path / "text.h5").write_text("text")
    tiny_network().save_weights(tmp_path / "other.weights.h5")
    with h5py.File(tmp_path / "claims.h5", "w") as file:
        file.create_dataset("huge", (1_000_000, 1_000), "f4", chunks=(1_000, 1_000))
    for file in ("text.h5", "other.weights.h5", "claims.h5"):
        ended = call(*arguments, file, cwd=tmp_path)
        assert_refused(ended, file, "name that file with --weights", "https://storage")
    assert "it claims larger arrays than are in it" in ended.errors
