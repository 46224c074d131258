import csv
import re
import signal
import sys
from types import SimpleNamespace

from conftest import (
    TINY,
    assert_refused,
    call,
    ctrl_c_after,
    numbers,
    result,
    tiny_network,
    train,
)
from data.batches import TrainingBatches
from experiments import speedrun
from harness import Experiment, prep_pixels
from machinery import callbacks
from machinery.callbacks import Progress, SaveProgress, SeedEachEpoch, duration, state_of
from machinery.checkpoint import load_checkpoint, save_checkpoint
from machinery.run import Run

import keras
import numpy as np
import pytest
from keras import layers
from keras.callbacks import CSVLogger, EarlyStopping, ModelCheckpoint, ReduceLROnPlateau

# No loss falls by this much: with it for min_delta, the first epoch stays the best.
NEVER = 10


# The callbacks of every run.


@pytest.fixture
def seeded(sample):
    """A callback, its batches, and a network with dropout."""
    model = keras.Sequential([keras.Input((8,)), layers.Dropout(0.5), layers.Dense(2)])
    batches = TrainingBatches(sample.x_train[:20], sample.y_train[:20], 8, prep_pixels)
    callback = SeedEachEpoch(3, batches)
    callback.set_model(model)
    return callback, batches, model


def drawn(callback, batches, model, epoch):
    callback.on_epoch_begin(epoch)
    dropped = model.layers[0](np.ones((4, 8)), training=True).numpy() == 0
    return batches.order.tolist(), batches.batch_seeds.tolist(), dropped.tolist()


def test_what_an_epoch_draws_depends_on_seed_and_epoch_alone(seeded):
    third = drawn(*seeded, epoch=2)
    others = [drawn(*seeded, epoch=epoch) for epoch in (0, 1)]
    assert drawn(*seeded, epoch=2) == third
    seeded[0].seed = 4
    for other in (*others, drawn(*seeded, epoch=2)):
        for part, same in zip(other, third, strict=True):
            assert part != same


class PressCtrlC(keras.callbacks.Callback):
    """In the middle of the second step, where nothing comes of what is raised, as within C++."""

    def __init__(self, times):
        super().__init__()
        self.times, self.raised, self.steps = times, 0, 0

    def on_train_batch_begin(self, batch, logs=None):
        self.steps += 1
        if self.steps == 2:
            for _ in range(self.times):
                try:
                    signal.raise_signal(signal.SIGINT)
                except KeyboardInterrupt:
                    self.raised += 1


@pytest.mark.parametrize(("times", "raised"), [(1, 0), (2, 1)])
def test_ctrl_c_is_not_lost_and_the_second_does_not_wait(tmp_path, times, raised):
    pressed = PressCtrlC(times)
    ended = train(Experiment(tiny_network, 9, callbacks=(pressed,)), *TINY, cwd=tmp_path)
    assert ended.code == 130 and "0 of 20 epochs are saved" in ended.errors
    assert (pressed.steps, pressed.raised) == (2, raised)


def test_ctrl_c_at_the_end_of_the_last_epoch_is_not_lost(tmp_path):
    press = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: signal.raise_signal(signal.SIGINT)
    )
    experiment = Experiment(tiny_network, 9, callbacks=(press,))
    ended = train(experiment, *TINY, "--epochs", 1, cwd=tmp_path)
    assert ended.code == 130 and "1 of 1 epochs are saved" in ended.errors


def test_batches_are_told_their_epoch(seeded):
    seeded[0].on_epoch_begin(7)
    assert seeded[1].epoch == 7


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(44.6, "45 s"), (200, "3 min 20 s"), (4319.6, "1 h 12 min"), (90_000, "25 h 0 min")],
)
def test_duration_in_words(seconds, words):
    assert duration(seconds) == words


def test_progress_tells_the_time_left_for_the_whole_run(monkeypatch, capsys):
    clock = SimpleNamespace(monotonic=lambda: clock.now, now=1000)
    monkeypatch.setattr(callbacks, "time", clock)
    progress = Progress("test")
    progress.set_params({"epochs": 100, "steps": 1, "verbose": 2})
    progress.on_train_begin()
    progress.on_epoch_begin(40)  # resumed after 40 epochs
    clock.now += 144
    progress.on_epoch_begin(42)
    assert "About 1 h 9 min left. Epoch 43/100" in capsys.readouterr().out


def test_epochs_are_evaluated_on_what_they_are_said_to_be(capsys):
    progress = Progress("validation")
    progress.set_params({"epochs": 1, "steps": 1, "verbose": 2})
    progress.on_train_begin()
    progress.on_epoch_begin(0)
    logs = {"loss": 1.0, "val_loss": 2.0}
    progress.on_epoch_end(0, logs)
    printed = capsys.readouterr().out
    assert "validation_loss: 2" in printed and "val_loss" not in printed
    assert "val_loss" in logs  # for the callbacks that come after


def test_metric_whose_name_has_val_in_it_keeps_it(capsys):
    progress = Progress("test")
    progress.set_params({"epochs": 1, "steps": 1, "verbose": 2})
    progress.on_train_begin()
    progress.on_epoch_begin(0)
    progress.on_epoch_end(0, {"interval_error": 1.0, "val_interval_error": 2.0})
    printed = capsys.readouterr().out
    assert " interval_error: 1" in printed and " test_interval_error: 2" in printed


class Kept(keras.callbacks.Callback):
    """A callback with a setting, and with all kinds of state."""

    def __init__(self, patience):
        super().__init__()
        self.patience, self.limit = patience, 3
        self.wait, self.name, self.nothing = 1, "x", None
        self.losses, self.best = [0.5, 0.25], {"epoch": 2, "weights": (np.ones(2), np.zeros(3))}
        self.function, self.unnamed = np.less, object()


def test_state_is_what_is_made_of_numbers_texts_and_arrays():
    state = state_of(Kept(patience=4))
    assert {*state} - {"_model", "params"} == {
        "limit", "wait", "name", "nothing", "losses", "best",
    }  # fmt: skip


def test_settings_are_not_state():
    stopping = EarlyStopping(monitor="val_loss", min_delta=0.1)
    assert "min_delta" not in state_of(stopping) and "wait" in state_of(stopping)


# Keras's callbacks, as its documentation says.


def test_early_stopping_stops_and_restores_the_best_weights(tmp_path):
    stopping = EarlyStopping(
        monitor="val_loss", patience=2, min_delta=NEVER, restore_best_weights=True
    )
    experiment = Experiment(tiny_network, 10, callbacks=(stopping,))
    ended = train(experiment, *TINY, "--epochs", 10, cwd=tmp_path)
    assert ended.code == 0, ended.errors
    rows = numbers(tmp_path / "runs" / "mine.csv")
    assert len(rows) == 3
    recorded = result(tmp_path / "runs" / "mine.json")
    assert recorded["test_loss"] == pytest.approx(float(rows[0]["test_loss"]), abs=1e-5)
    assert recorded["test_loss"] != pytest.approx(float(rows[2]["test_loss"]), abs=1e-5)


def test_run_that_stopped_early_says_so_and_counts_what_it_trained(tmp_path, monkeypatch):
    monkeypatch.setattr("machinery.run.operations_per_image", lambda model: 1e13)

    def run(folder, patience):
        stopping = EarlyStopping("val_loss", min_delta=NEVER, patience=patience)
        experiment = Experiment(tiny_network, 4, callbacks=(stopping,))
        ended = train(experiment, *TINY, "--epochs", 4, "--out", folder, cwd=tmp_path)
        return ended.output, result(tmp_path / folder / "mine.json")

    (whole_output, whole), (early_output, early) = run("whole", 9), run("early", 1)
    assert "(on 20 training images of the sample of CIFAR-10)\n" in whole_output
    assert "; stopped early, after 2 of 4 epochs)\n" in early_output
    assert (whole["epochs_trained"], early["epochs_trained"]) == (4, 2)
    assert early["settings"]["epochs"] == 4
    assert (whole["training_petaflop"], early["training_petaflop"]) == (0.8, 0.4)


def test_learning_rate_falls_on_a_plateau(tmp_path):
    rates = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            rates.append(float(self.model.optimizer.learning_rate))

    plateau = ReduceLROnPlateau("val_loss", factor=0.1, patience=1, min_delta=NEVER)
    experiment = Experiment(tiny_network, 3, callbacks=(plateau, Watch()))
    train(experiment, *TINY, "--epochs", 3, cwd=tmp_path)
    assert rates == pytest.approx([0.01, 0.001, 0.0001])


def test_csv_logger_sees_what_is_evaluated_after_each_epoch(tmp_path):
    logger = CSVLogger(str(tmp_path / "keras.csv"))
    train(Experiment(tiny_network, 2, callbacks=(logger,)), *TINY, "--epochs", 2, cwd=tmp_path)
    with open(tmp_path / "keras.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert set(rows[0]) == {"epoch", "loss", "accuracy", "val_loss", "val_accuracy"}
    for row, our_row in zip(rows, numbers(tmp_path / "runs" / "mine.csv"), strict=True):
        assert float(row["val_loss"]) == pytest.approx(float(our_row["test_loss"]), abs=1e-5)


def test_model_checkpoint_keeps_the_best_model(tmp_path):
    best = tmp_path / "best.keras"
    keep = ModelCheckpoint(str(best), monitor="val_accuracy", save_best_only=True)
    train(Experiment(tiny_network, 2, callbacks=(keep,)), *TINY, "--epochs", 2, cwd=tmp_path)
    assert keras.saving.load_model(best).output_shape == (None, 10)


def test_tensorboard_writes_its_events(tmp_path):
    pytest.importorskip("tensorboard")
    board = keras.callbacks.TensorBoard(str(tmp_path / "logs"))
    train(Experiment(tiny_network, 1, callbacks=(board,)), *TINY, "--epochs", 1, cwd=tmp_path)
    assert list((tmp_path / "logs").rglob("events*"))


def test_any_callback_can_stop_the_training(tmp_path):
    class Enough(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = logs["val_accuracy"] >= 0

    ended = train(
        Experiment(tiny_network, 5, callbacks=(Enough(),)), *TINY, "--epochs", 5, cwd=tmp_path
    )
    assert "stopped early, after 1 of 5 epochs" in ended.output


# Their state survives a break.


def with_callbacks(patience=9):
    """An experiment, and callbacks that count: no epoch is better than the first."""
    stopping = EarlyStopping(
        "val_loss", patience=patience, min_delta=NEVER, restore_best_weights=True
    )
    plateau = ReduceLROnPlateau("val_loss", factor=0.5, patience=2, min_delta=NEVER)
    # Augmentation and dropout would be other ones if the break had left a trace.
    experiment = Experiment(
        tiny_network, 5, augment=speedrun.augment, callbacks=(stopping, plateau)
    )
    return experiment, stopping, plateau


FIVE = (*TINY, "--epochs", 5)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    experiment, stopping, plateau = with_callbacks()
    assert train(experiment, *FIVE, cwd=folder).code == 0
    return folder / "runs", stopping, plateau


@pytest.mark.parametrize("epochs", [1, 2])
def test_callbacks_go_on_counting_after_a_break(tmp_path, uninterrupted, epochs):
    folder, whole_stopping, whole_plateau = uninterrupted
    with ctrl_c_after(epochs):
        assert train(with_callbacks()[0], *FIVE, cwd=tmp_path).code == 130
    experiment, stopping, plateau = with_callbacks()
    ended = train(experiment, *FIVE, "--resume", cwd=tmp_path)
    assert f"Resuming after epoch {epochs} of 5" in ended.output, ended.errors

    assert (stopping.wait, stopping.best, stopping.best_epoch) == (4, whole_stopping.best, 0)
    for ours, theirs in zip(stopping.best_weights, whole_stopping.best_weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert (plateau.wait, plateau.best) == (whole_plateau.wait, whole_plateau.best)
    rates = [float(each.model.optimizer.learning_rate) for each in (plateau, whole_plateau)]
    assert rates[0] == rates[1] == pytest.approx(0.0025)

    assert numbers(tmp_path / "runs" / "mine.csv") == numbers(folder / "mine.csv")
    for name in ("test_loss", "test_accuracy"):
        assert result(tmp_path / "runs/mine.json")[name] == result(folder / "mine.json")[name]


def test_run_killed_after_early_stopping_trains_no_further(tmp_path, monkeypatch, uninterrupted):
    def full(*arguments):
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_result", full)
        assert train(with_callbacks(patience=2)[0], *FIVE, cwd=tmp_path).code == 2
    history = numbers(tmp_path / "runs" / "mine.csv")
    assert len(history) == 3

    ended = train(with_callbacks(patience=2)[0], *FIVE, "--resume", cwd=tmp_path)
    assert ended.code == 0, ended.errors
    assert not re.search(r"Epoch \d", ended.output)
    assert "stopped early, after 3 of 5 epochs" in ended.output
    assert numbers(tmp_path / "runs" / "mine.csv") == history
    # The best weights are those of the first epoch.
    recorded = result(tmp_path / "runs" / "mine.json")
    assert recorded["test_loss"] == pytest.approx(float(history[0]["test_loss"]), abs=1e-5)
    assert recorded["epochs_trained"] == 3


# TensorBoard.


def logged(folder):
    """What TensorBoard reads in a run's logs: for each name, sorted, a list of `(step, value)`."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    from tensorboard.util.tensor_util import make_ndarray

    found = {}
    for path in folder.glob("*/events*"):
        for event in loader.EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                points = found.setdefault(f"{path.parent.name}/{value.tag}", [])
                points.append((event.step, make_ndarray(value.tensor).item()))
    return {name: sorted(points) for name, points in found.items()}


def assert_logs_are_those_of(path, folder, split="test"):
    """Check that loss and accuracy of each epoch were logged once, as Keras counts them."""
    found, rows = logged(folder), numbers(path)
    names = {"train": "train", "validation": split}
    for name, column in names.items():
        for metric, unit in (("loss", 1), ("accuracy", 100)):
            points = found[f"{name}/epoch_{metric}"]
            assert [step for step, _ in points] == list(range(len(rows)))
            told = [float(row[f"{column}_{metric}"]) / unit for row in rows]
            assert [value for _, value in points] == pytest.approx(told, abs=1e-5)


def with_tensorboard(*arguments, cwd, epochs=3):
    pytest.importorskip("tensorboard")
    arguments = (*TINY, "--epochs", epochs, "--tensorboard", *arguments)
    return train(Experiment(tiny_network, epochs), *arguments, cwd=cwd)


def test_tensorboard_is_shown_the_numbers_of_the_run_and_changes_none(tmp_path):
    ended = with_tensorboard("--out", "my runs", cwd=tmp_path)
    assert "TensorBoard:     tensorboard --logdir 'my runs/tensorboard'\n" in ended.output
    runs = tmp_path / "my runs"
    assert_logs_are_those_of(runs / "mine.csv", runs / "tensorboard/mine")

    train(Experiment(tiny_network, 3), *TINY, "--epochs", 3, cwd=tmp_path)
    assert numbers(tmp_path / "runs/mine.csv") == numbers(runs / "mine.csv")
    assert not (tmp_path / "runs/tensorboard").exists()
    settings = [result(folder / "mine.json")["settings"] for folder in (runs, tmp_path / "runs")]
    assert settings[0] == settings[1]


def test_all_seeds_and_folds_are_shown_beside_each_other(tmp_path):
    with_tensorboard("--seed", 2, "--fold", "1/2", cwd=tmp_path)
    place = "seed_2/fold_1_of_2"
    csv_path, logs = (
        tmp_path / f"runs/{place}/mine.csv",
        tmp_path / f"runs/tensorboard/{place}/mine",
    )
    assert_logs_are_those_of(csv_path, logs, "validation")


@pytest.mark.parametrize("begun_with", [["--tensorboard"], []])
def test_curves_go_on_where_a_resumed_run_does(tmp_path, monkeypatch, begun_with):
    pytest.importorskip("tensorboard")
    save_epoch = Run.save_epoch

    def save_but_the_third(self, row, *arguments):
        if row["epoch"] == 3:  # which is logged by now
            raise KeyboardInterrupt
        save_epoch(self, row, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_epoch", save_but_the_third)
        experiment = Experiment(tiny_network, 5)
        assert train(experiment, *FIVE, *begun_with, cwd=tmp_path).code == 130
    ended = with_tensorboard("--resume", cwd=tmp_path, epochs=5)
    assert "Resuming after epoch 2 of 5" in ended.output, ended.errors
    assert_logs_are_those_of(tmp_path / "runs/mine.csv", tmp_path / "runs/tensorboard/mine")


def test_logs_of_an_earlier_run_are_kept_apart(tmp_path):
    for epochs in (3, 2):
        with_tensorboard("--seed", 1, cwd=tmp_path, epochs=epochs)
    runs = tmp_path / "runs/seed_1"
    assert_logs_are_those_of(runs / "mine.csv", tmp_path / "runs/tensorboard/seed_1/mine")
    (history,) = (runs / "earlier").glob("*.csv")
    assert_logs_are_those_of(history, history.with_suffix(""))


def test_finished_run_is_shown_without_training_it_again(tmp_path):
    train(Experiment(tiny_network, 3), *TINY, "--epochs", 3, cwd=tmp_path)
    ended = with_tensorboard("--resume", cwd=tmp_path)
    assert "nothing to resume" in ended.output and "tensorboard --logdir" in ended.output
    assert_logs_are_those_of(tmp_path / "runs/mine.csv", tmp_path / "runs/tensorboard/mine")


def test_final_model_of_all_images_shows_training_alone(tmp_path):
    pytest.importorskip("tensorboard")
    ended = call("finalize.py", *TINY, "--epochs", 1, "--all-images", "--tensorboard", cwd=tmp_path)
    assert ended.code == 0, ended.errors
    folders = [path.name for path in (tmp_path / "runs/tensorboard/final_model").iterdir()]
    assert folders == ["train"]


@pytest.mark.parametrize(
    "script", ["experiments/baseline1.py", "experiments/speedrun.py", "finalize.py", "run_all.py"]
)
def test_missing_tensorboard_is_explained_before_anything_begins(tmp_path, monkeypatch, script):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    ended = call(script, "--sample", "--tensorboard", cwd=tmp_path)
    assert_refused(ended, "--tensorboard needs TensorBoard: `pip install tensorboard`")
    assert ended.output == "" and list(tmp_path.iterdir()) == []


def test_accuracies_are_those_of_a_number_of_images():
    """Keras computes in float32, where 4,352 of 10,000 are 43.520001 %."""
    rows = []
    run = SimpleNamespace(evaluated_on="test", save_epoch=lambda row, *others: rows.append(row))
    callback = SaveProgress(run, [])
    callback.on_epoch_begin(0)
    measured = float(np.float32(0.4352))
    callback.on_epoch_end(
        0, {"loss": 1.0, "accuracy": measured, "val_loss": 1.0, "val_accuracy": measured}
    )
    assert rows[0]["train_accuracy"] == rows[0]["test_accuracy"] == 43.52


@pytest.mark.parametrize("state", [{"wait": "a"}, {"on_epoch_end": 5}, {"_model": 5}])
def test_states_that_make_no_sense_are_told_in_one_line(tmp_path, state):
    experiment, stopping, _ = with_callbacks()
    with ctrl_c_after(1):
        train(experiment, *FIVE, cwd=tmp_path)
    checkpoint = tmp_path / "runs" / "mine.checkpoint.keras"
    model, record, states = load_checkpoint(checkpoint)
    place = experiment.callbacks.index(stopping)
    states[place] |= state
    save_checkpoint(checkpoint, tmp_path / "before.keras", model, record, states)
    ended = train(with_callbacks()[0], *FIVE, "--resume", cwd=tmp_path)
    assert_refused(ended, "the EarlyStopping can't go on from what is saved of it")
    assert checkpoint.exists() and numbers(tmp_path / "runs" / "mine.csv")
