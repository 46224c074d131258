"""The harness that every experiment runs in: options, data, training, learning curves, result.

An experiment trains a model, evaluates it after each epoch and leaves three files: the learning
curves (.png), the numbers they were drawn from (.csv), and the result with all it takes to repeat
it (.json). Read `run_experiment` first: it is the whole story, the rest are its steps.
"""

import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import keras
import matplotlib
import numpy as np
import tensorflow as tf

from dataset import DatasetError, balanced_indices, find_cifar10, replace_when_complete
from models.batch_norm import fuse_batch_norm
from models.dropout import save_random_bits
from options import SAMPLE_EPOCHS, UsageError, option_parser, parse_options, readable_errors
from results import (
    RunFiles,
    accuracy_line,
    find_earlier_run,
    hardware,
    make_way,
    operations_per_image,
    read_history,
    remark_on_data,
    remove_partial_files,
    software,
    write_history,
    write_result,
)

matplotlib.use("Agg")  # draws into files, needs no display
import matplotlib.pyplot as plt

EVALUATION_BATCH_SIZE = 500  # the result does not depend on it, the speed does

# TensorFlow tunes input pipelines while they run. Nothing is to be gained here, and one time in ten
# the end of a tuned pipeline waits for the tuner, up to as long again as the pipeline has run.
UNTUNED = tf.data.Options()
UNTUNED.autotune.enabled = False


class Experiment(NamedTuple):
    """What makes an experiment different from the others.

    Fields:
        define_model: function that returns a compiled Keras model from float32 images
            (n, 32, 32, 3) in [0, 1] to ten class probabilities.
        epochs: passes over the training images, unless `--epochs` says otherwise.
        published_accuracy: top-1 test accuracy that the tutorial reports, in percent.
        batch_size: images per step, unless `--batch-size` says otherwise.
        augment: what is done to the images of a batch in training; see `training_batches`.
        prepare: function of the new model and the uint8 training images, called before training.
        callbacks: Keras callbacks beside those of the harness.
        at_test_time: function of the trained model that returns the compiled one to be tested.
    """

    define_model: Callable
    epochs: int
    published_accuracy: float
    batch_size: int = 64
    augment: Callable | None = None
    prepare: Callable | None = None
    callbacks: tuple = ()
    at_test_time: Callable | None = None


# Data


def load_dataset(cifar10=None, limit=None):
    """Return CIFAR-10 as `trainX, trainY, testX, testY`.

    Args:
        cifar10: a `dataset.Cifar10`; None finds or downloads the full dataset.
        limit: keep this many training images, and a fifth as many test images, balanced over the
            classes. None keeps all.

    Returns:
        trainX, testX: uint8 images (n, 32, 32, 3) in 0..255.
        trainY, testY: float32 one-hot labels (n, 10).

    Raises:
        DatasetError: if CIFAR-10 can't be had, or is smaller than the limit.
    """
    x_train, y_train, x_test, y_test = (cifar10 or find_cifar10())[:4]
    if limit:
        if limit > len(x_train):
            raise DatasetError(f"--limit {limit} is above the {len(x_train):,} training images")
        train = balanced_indices(y_train, limit)
        test = balanced_indices(y_test, max(10, limit // 5))
        x_train, y_train, x_test, y_test = (
            x_train[train],
            y_train[train],
            x_test[test],
            y_test[test],
        )
    return (
        x_train,
        keras.utils.to_categorical(y_train, 10),
        x_test,
        keras.utils.to_categorical(y_test, 10),
    )


def prep_pixels(train, test):
    """Scale uint8 images in 0..255 to float32 in [0, 1], same shapes.

    That takes four times the memory: the harness does it batch by batch, with `scale_pixels`.
    """
    return scale_pixels(train).numpy(), scale_pixels(test).numpy()


def scale_pixels(images):
    """Scale uint8 images in 0..255 to a tensor of float32 in [0, 1], same shape."""
    return tf.cast(images, tf.float32) / 255


def hold_out(images, labels):
    """Split a tenth off, balanced over the classes, to choose by without looking at the test set.

    Args:
        images: (n, 32, 32, 3). labels: one-hot (n, 10).

    Returns:
        `(images, labels), (held_out_images, held_out_labels)`.
    """
    held_out = np.zeros(len(labels), dtype=bool)
    held_out[balanced_indices(labels.argmax(axis=1), max(10, len(labels) // 10))] = True
    return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])


def training_batches(images, labels, batch_size, seed, augment=None, first_epoch=0):
    """Return an endless `tf.data.Dataset` of shuffled batches, epoch after epoch.

    An epoch depends on the seed and the epoch's number alone, so that a resumed run sees what the
    uninterrupted run would have seen.

    Args:
        images: uint8 (n, 32, 32, 3) in 0..255. labels: float32 (n, 10).
        batch_size: images in a batch; the last one of an epoch may be smaller.
        seed: whole number in 0..2**32-1.
        augment: function `(images, numbers, epoch, seed) -> images` of a batch: float32 images
            in [0, 1], which of all the images they are, the epoch's number from 0, and a seed for
            the batch. None leaves the images as they are.
        first_epoch: number of the epoch to begin with, from 0.

    Returns:
        Dataset of float32 images (batch_size, 32, 32, 3) in [0, 1] and their labels.
    """

    def batches_of_epoch(epoch):
        epoch_seed = tf.stack([tf.constant(seed, tf.int64), epoch])
        order = tf.random.experimental.stateless_shuffle(tf.range(len(images)), seed=epoch_seed)

        def batch(step, numbers):
            pixels, batch_labels = take(images, labels, numbers)
            if augment:
                batch_seed = tf.random.experimental.stateless_fold_in(epoch_seed, step)
                pixels = augment(pixels, numbers, epoch, batch_seed)
            return pixels, batch_labels

        return tf.data.Dataset.from_tensor_slices(order).batch(batch_size).enumerate().map(batch)

    epochs = tf.data.Dataset.counter(first_epoch)
    return epochs.flat_map(batches_of_epoch).prefetch(2).with_options(UNTUNED)


def evaluation_batches(images, labels):
    """Return a `tf.data.Dataset` of large batches in order.

    Args:
        images: uint8 (n, 32, 32, 3) in 0..255. labels: float32 (n, 10).
    """
    numbers = tf.data.Dataset.range(len(images)).batch(EVALUATION_BATCH_SIZE)
    batches = numbers.map(lambda numbers: take(images, labels, numbers))
    return batches.prefetch(1).with_options(UNTUNED)


def take(images, labels, numbers):
    """Return the images and labels with the given numbers, the images as float32 in [0, 1]."""
    # The images remain one NumPy array: TensorFlow would make two copies of it.
    pixels = tf.numpy_function(images.__getitem__, [numbers], tf.uint8, stateful=False)
    pixels = tf.ensure_shape(pixels, (None, *images.shape[1:]))
    return scale_pixels(pixels), tf.gather(labels, numbers)


# The experiment


def run_test_harness(script, experiment):
    """Run the experiment that a script defines, with the options of its command line.

    Args:
        script: the script's `__file__`; its name is the experiment's.
        experiment: an `Experiment`.
    """
    name = Path(script).stem
    with readable_errors():
        options = parse_options(option_parser(experiment.epochs))
        run_experiment(name, name, experiment, options)
        suggest_comparison(options)


def suggest_comparison(options):
    """Print the command that shows the run beside the others in its folder."""
    folder = "" if options.out == "runs" else f" {options.out}"
    print(f"Next:            python compare.py{folder}")


def run_experiment(name, experiment_name, experiment, options, save_model=None):
    """Train, evaluate after each epoch, and leave NAME.png, NAME.csv and NAME.json.

    Args:
        name: what the files are called.
        experiment_name, experiment: the experiment; see `run_test_harness`.
        options: what `parse_options` returned.
        save_model: function of the trained model and its result, called before the run counts
            as finished. None discards the model.
    """
    epochs = options.epochs or (SAMPLE_EPOCHS if options.sample else experiment.epochs)
    batch_size = options.batch_size or experiment.batch_size
    files = RunFiles.of(options.out, name)
    settings = {
        "experiment": experiment_name,
        "epochs": epochs,
        "batch_size": batch_size,
        "seed": options.seed,
        "mixed_precision": options.mixed_precision,
        "validation": options.validation,
        "sample": options.sample,
        "limit": options.limit,
    }
    earlier = find_earlier_run(files, settings, options.resume)
    if options.resume and earlier["finished"]:
        print(f"{files.result} is finished already, there is nothing to resume")
        print(accuracy_line(earlier["test_accuracy"], earlier["remark"]))
        return

    cifar10 = find_cifar10(options.data, options.sample)
    trainX, trainY, testX, testY = load_dataset(cifar10, options.limit)
    evaluated_on, (valX, valY) = "test", (testX, testY)
    if options.validation == "holdout":
        evaluated_on = "validation"
        (trainX, trainY), (valX, valY) = hold_out(trainX, trainY)

    result = {
        "name": name,
        "test_accuracy": None,
        "test_loss": None,
        "published_accuracy": experiment.published_accuracy,
        "remark": remark_on_data(cifar10, options),
        "settings": settings,
        "dataset": {
            "source": cifar10.source,
            "sha256": cifar10.sha256(),
            "training_images": len(trainX),
            "validation_images": len(valX) if evaluated_on == "validation" else 0,
            "test_images": len(testX),
        },
        "versions": software(),
        "hardware": hardware(),
        "started": datetime.now().isoformat(timespec="seconds"),
        "finished": None,
    }
    if options.resume:
        if earlier["dataset"]["sha256"] != result["dataset"]["sha256"]:
            raise UsageError(
                f"{files.result} was started with other images, from {earlier['dataset']['source']}"
            )
        result["started"] = earlier["started"]
    else:
        make_way(earlier, files)
    remove_partial_files(files)
    write_result(files.result, result)

    # Whole runs are repeatable: same seed, same machine, same numbers.
    tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(options.seed)
    # Mixed precision: weights and their updates in float32, layers compute in bfloat16.
    # Micikevicius et al. 2018, https://arxiv.org/abs/1710.03740
    keras.config.set_dtype_policy("mixed_bfloat16" if options.mixed_precision else "float32")
    steps = -(-len(trainX) // batch_size)  # rounded up
    if files.checkpoint.exists():
        model = keras.saving.load_model(files.checkpoint)
        epochs_done = int(model.optimizer.iterations) // steps
        history = read_history(files.numbers, epochs_done)
        print(f"Resuming after epoch {epochs_done} of {epochs}")
    else:
        model = experiment.define_model()
        if experiment.prepare:
            experiment.prepare(model, trainX)
        epochs_done, history = 0, read_history(None)
    print(
        f"{name}: {model.count_params():,} parameters, {len(trainX):,} training images, "
        f"{epochs} epochs of {steps} steps, "
        f"computed in {keras.config.dtype_policy().compute_dtype}",
        flush=True,
    )
    fuse_batch_norm(model)
    save_random_bits(model)
    progress = SaveProgress(epochs_done, history, files, evaluated_on, options.seed)
    batches = training_batches(
        trainX, trainY, batch_size, options.seed, experiment.augment, epochs_done
    )
    try:
        model.fit(
            batches,
            steps_per_epoch=steps,
            initial_epoch=epochs_done,
            epochs=epochs,
            shuffle=False,  # training_batches has done it
            validation_data=evaluation_batches(valX, valY),
            callbacks=[progress, TimeLeft(), *experiment.callbacks],
            verbose=1 if sys.stdout.isatty() else 2,  # a log file gets a line per epoch, no bar
        )
        tested = experiment.at_test_time(model) if experiment.at_test_time else model
        loss, accuracy = tested.evaluate(evaluation_batches(testX, testY), verbose=0)
    except KeyboardInterrupt:
        print(
            f"\nInterrupted. {progress.epochs_saved} of {epochs} epochs are saved in "
            f"{options.out}.\nTo go on, run the same command with --resume."
        )
        raise

    result["test_accuracy"], result["test_loss"] = round(100 * accuracy, 4), round(loss, 6)
    result["parameters"] = model.count_params()
    operations = operations_per_image(model) * len(trainX) * epochs
    result["training_petaflop"] = round(operations / 1e15, 4)
    result["seconds"] = round(sum(history["seconds"]), 1)
    result["finished"] = datetime.now().isoformat(timespec="seconds")
    print(accuracy_line(result["test_accuracy"], result["remark"]))
    title = f"{name}: test accuracy {result['test_accuracy']:.2f} %\n{result['remark']}".strip()
    summarize_diagnostics(history, files.curves, title)
    if save_model:
        save_model(model, result)
    write_result(files.result, result)
    files.checkpoint.unlink()
    print(f"Learning curves: {files.curves}")
    print(f"Numbers:         {files.numbers}")
    print(f"Result:          {files.result}")


class TimeLeft(keras.callbacks.Callback):
    """Adds the minutes that the whole run still takes to Keras's progress bar.

    Keras's bar prints whatever is in the logs, and knows only the time left for its own epoch.
    """

    def on_train_begin(self, logs=None):
        self.start = time.monotonic()
        self.steps_done = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.steps_left = (self.params["epochs"] - epoch) * self.params["steps"]

    def on_train_batch_end(self, batch, logs=None):
        self.steps_done += 1
        self.steps_left -= 1
        self.estimate(logs)

    def on_epoch_end(self, epoch, logs=None):
        self.estimate(logs)  # again, now that the evaluation's time is known

    def estimate(self, logs):
        if self.steps_left:
            minutes_per_step = (time.monotonic() - self.start) / 60 / self.steps_done
            logs["minutes_left"] = minutes_per_step * self.steps_left


class SaveProgress(keras.callbacks.Callback):
    """Saves numbers, model and optimizer after each epoch, so that a killed run can be resumed.

    Keras's BackupAndRestore keeps neither the history nor the state of the random numbers, and
    overwrites its file in place.
    """

    def __init__(self, epochs_saved, history, files, evaluated_on, seed):
        super().__init__()
        self.epochs_saved, self.history, self.files = epochs_saved, history, files
        self.evaluated_on, self.seed = evaluated_on, seed

    def on_epoch_begin(self, epoch, logs=None):
        self.start = time.monotonic()
        # Dropout and augmentation draw from generators that a checkpoint leaves out. Seeded anew
        # for each epoch, they draw in a resumed run what they would have drawn without the break.
        random = np.random.default_rng([self.seed, epoch])
        for variable in self.model.non_trainable_variables:
            if variable.name == "seed_generator_state":
                variable.assign(random.integers(2**31, size=2))

    def on_epoch_end(self, epoch, logs=None):
        # Keras says "val" for any set that fit() evaluates on; the tutorial's is the test set.
        for metric in ("accuracy", "loss"):
            logs[f"{self.evaluated_on}_{metric}"] = logs.pop(f"val_{metric}")
        row = {
            "epoch": epoch + 1,
            "train_loss": logs["loss"],
            "train_accuracy": 100 * logs["accuracy"],
            f"{self.evaluated_on}_loss": logs[f"{self.evaluated_on}_loss"],
            f"{self.evaluated_on}_accuracy": 100 * logs[f"{self.evaluated_on}_accuracy"],
            "seconds": time.monotonic() - self.start,
        }
        for column, value in row.items():
            self.history.setdefault(column, []).append(round(value, 6))
        # The checkpoint comes last: the epochs that it counts are in the numbers for sure.
        write_history(self.files.numbers, self.history)
        with replace_when_complete(self.files.checkpoint) as temporary:
            self.model.save(temporary)
        self.epochs_saved = epoch + 1


# What a run leaves behind


def summarize_diagnostics(history, path, title):
    """Draw the learning curves: loss above, accuracy below, train blue, test orange.

    Args:
        history: per epoch, a list for each column of NAME.csv; accuracies in percent.
        path: the PNG to write.
        title: what stands above the picture.
    """
    evaluated_on = "test" if "test_loss" in history else "validation"
    figure, (loss, accuracy) = plt.subplots(2, 1, figsize=(8, 8), sharex=True)
    figure.suptitle(title, wrap=True)
    for axes, metric, label in (
        (loss, "loss", "cross-entropy loss"),
        (accuracy, "accuracy", "accuracy (%)"),
    ):
        for split, color in (("train", "tab:blue"), (evaluated_on, "tab:orange")):
            axes.plot(
                history["epoch"], history[f"{split}_{metric}"], color=color, label=split,
                marker="o" if len(history["epoch"]) < 10 else None,
            )  # fmt: skip
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    accuracy.set_xlabel("epoch")
    accuracy.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    figure.tight_layout()
    with replace_when_complete(path) as temporary:
        figure.savefig(temporary, dpi=100)
    plt.close(figure)
