"""The callbacks of every run: its randomness, Ctrl-C, progress bar, checkpoints, TensorBoard."""

import inspect
import shutil
import signal
import time

from machinery.errors import UsageError, on_ctrl_c

import keras
import numpy as np
import tensorflow as tf

STATE_LEAVES = (type(None), bool, int, float, str, np.generic, np.ndarray)


class SeedEachEpoch(keras.callbacks.Callback):
    """Makes what is random in an epoch depend on the seed and the epoch alone.

    So a resumed run sees what it would have seen without the break.

    Args:
        seed: whole number from 0.
        batches: a `data.batches.TrainingBatches`, which this callback shuffles.
    """

    def __init__(self, seed, batches):
        super().__init__()
        self.seed, self.batches = seed, batches

    def on_epoch_begin(self, epoch, logs=None):
        random = np.random.default_rng([self.seed, epoch])
        self.batches.shuffle(epoch, random)
        # What dropout and other layers draw from; a checkpoint leaves these states out.
        for variable in self.model.non_trainable_variables:
            if variable.name == "seed_generator_state":
                variable.assign(random.integers(2**31, size=2))


class LeaveBetweenSteps(keras.callbacks.Callback):
    """Lets Ctrl-C wait for the end of the step.

    In the middle of one, TensorFlow's code in C++ may call Python and lose, or change, what is
    raised there: then training would go on. A second Ctrl-C does not wait.
    """

    def on_train_begin(self, logs=None):
        self.asked = False
        on_ctrl_c(self.ask)

    def ask(self, signal_number, frame):
        self.asked = True
        on_ctrl_c(signal.default_int_handler)

    def leave_if_asked(self, step_or_epoch=None, logs=None):
        if self.asked:
            raise KeyboardInterrupt

    on_epoch_begin = on_train_batch_end = on_test_batch_end = leave_if_asked

    def on_train_end(self, logs=None):
        on_ctrl_c(signal.default_int_handler)
        self.leave_if_asked()


class Progress(keras.callbacks.ProgbarLogger):
    """Keras's progress bar, with the time left for the whole run.

    Keras says "val" for whatever set `fit` evaluates on; here it is called by its name.

    Args:
        evaluated_on: "test", "validation", or None if nothing is evaluated.
    """

    def __init__(self, evaluated_on):
        super().__init__()
        self.evaluated_on = evaluated_on

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        self.start, self.first_epoch = time.monotonic(), None

    def on_epoch_begin(self, epoch, logs=None):
        if self.first_epoch is None:
            self.first_epoch = epoch
        else:
            per_epoch = (time.monotonic() - self.start) / (epoch - self.first_epoch)
            print(f"About {duration(per_epoch * (self.epochs - epoch))} left. ", end="")
        super().on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, {self.name_of(metric): logs[metric] for metric in logs})

    def name_of(self, metric):
        is_evaluated = metric.startswith("val_")
        return f"{self.evaluated_on}_{metric.removeprefix('val_')}" if is_evaluated else metric


def duration(seconds):
    """Return seconds in words: `1 h 12 min`, `3 min 20 s` or `45 s`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"


class SaveProgress(keras.callbacks.Callback):
    """Saves history, model and callbacks after each epoch, so that a killed run can be resumed.

    Keras's BackupAndRestore keeps neither the history nor the callbacks' state, and overwrites its
    file in place. This one has to come last: it saves what the others have made of the epoch.

    Args:
        run: a `machinery.run.Run`.
        others: the callbacks whose state is saved: patience counted so far, best weights.
    """

    def __init__(self, run, others):
        super().__init__()
        self.run, self.others = run, others

    def on_train_begin(self, logs=None):
        # Keras's callbacks reset themselves when training begins, which they have done by now.
        for callback, state in zip(self.others, self.run.callback_states, strict=False):
            vars(callback).update(state)

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.monotonic()

    def on_train_batch_end(self, batch, logs=None):
        if "accuracy" not in logs:
            raise UsageError('the model has no accuracy: compile it with metrics=["accuracy"]')

    def on_epoch_end(self, epoch, logs=None):
        row = {
            "epoch": epoch + 1,
            "train_loss": logs["loss"],
            "train_accuracy": round(100 * logs["accuracy"], 4),
        }
        if split := self.run.evaluated_on:
            row[f"{split}_loss"] = logs["val_loss"]
            row[f"{split}_accuracy"] = round(100 * logs["val_accuracy"], 4)
        row["seconds"] = time.monotonic() - self.start
        self.run.save_epoch(row, self.model, [state_of(callback) for callback in self.others])


def state_of(callback):
    """Return those attributes of a callback that are made of numbers, texts and arrays.

    Those that it was made with are left out: they are in the code. (Keras's EarlyStopping changes
    the sign of its min_delta when training begins, and would do so once more.)
    """
    settings = inspect.signature(type(callback)).parameters
    return {
        name: value
        for name, value in vars(callback).items()
        if name not in settings
        and all(isinstance(leaf, STATE_LEAVES) for leaf in keras.tree.flatten(value))
    }


def tensorboard(folder, history, evaluated_on):
    """Return Keras's callback for TensorBoard, with the epochs before a break in its curves.

    Args:
        folder, history, evaluated_on: see `log_history`.
    """
    log_history(folder, history, evaluated_on)
    return keras.callbacks.TensorBoard(str(folder), write_graph=False)


def log_history(folder, history, evaluated_on):
    """Log the epochs that are done for TensorBoard, as Keras would have done.

    In place of what is in the folder. A run that was killed may have logged less than it has saved,
    or more; the history has just what is saved. It has no learning rates, so they are not logged.

    Args:
        folder: the run's logs; it is made.
        history: per epoch, a list for each column of NAME.csv; accuracies in percent.
        evaluated_on: "test", "validation", or None if nothing is evaluated. To Keras, it is always
            "validation".
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = {"train": "train", "validation": evaluated_on}
    for name, split in names.items():
        if f"{split}_loss" not in history:
            continue
        with tf.summary.create_file_writer(str(folder / name)).as_default():
            for row, epoch in enumerate(history["epoch"]):
                loss, accuracy = history[f"{split}_loss"], history[f"{split}_accuracy"]
                tf.summary.scalar("epoch_loss", loss[row], step=epoch - 1)
                tf.summary.scalar("epoch_accuracy", accuracy[row] / 100, step=epoch - 1)
