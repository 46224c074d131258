"""The harness that every experiment runs in, in the tutorial's five steps.

They are: load the images, prepare their pixels, define the model, evaluate it after each epoch of
training, present its learning curves. Read `run_experiment` first: it is the whole story. What is
not one of the steps (options, resuming, records) is called by name here and lives in `machinery/`;
where images come from and how they become batches is in `data/`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from data.batches import Batches, TrainingBatches
from data.download import find_dataset
from data.splits import balanced_indices, train_val_test_split
from machinery.errors import readable_errors
from machinery.fast_layers import fuse_batch_norm
from machinery.figures import save_figure
from machinery.options import command, option_parser, parse_options
from machinery.records import accuracy_line
from machinery.run import begin_run

import keras
import matplotlib.pyplot as plt
import numpy as np
import tensorflow as tf


class Experiment(NamedTuple):
    """What makes an experiment different from the others.

    Fields:
        define_model: function `(input_shape, classes)`, by default (32, 32, 3) and 10, that returns
            a Keras model, functional or Sequential, from float32 images (n, *input_shape) in [0, 1]
            to class probabilities (n, classes), compiled with "accuracy" among its metrics.
        epochs: passes over the training images, unless `--epochs` says otherwise.
        published_accuracy: top-1 test accuracy in percent, as the tutorial reports it; None if it
            does not.
        batch_size: images per step, unless `--batch-size` says otherwise.
        augment: function that changes the images of a training batch; see `data.batches`.
        initialize: function of the new model and the uint8 training images, called before training.
        callbacks: any of Keras's, or your own; they see Keras's logs (`val_loss`, `val_accuracy`).
        test_time_augmentation: function of the trained model that returns the compiled model to be
            tested in its place.
        learning_rate: function of the steps per epoch and the number of epochs that returns one of
            `keras.optimizers.schedules`, or your own, for the model's optimizer. Schedules count
            steps, and how many there are depends on images and options.
        validation: what is evaluated after each epoch, "test" or "holdout", unless `--validation`
            says otherwise.
    """

    define_model: Callable
    epochs: int
    published_accuracy: float | None = None
    batch_size: int = 64
    augment: Callable | None = None
    initialize: Callable | None = None
    callbacks: tuple = ()
    test_time_augmentation: Callable | None = None
    learning_rate: Callable | None = None
    validation: str = "test"


def run_test_harness(script, experiment):
    """Run the experiment that a script defines, with the options of its command line.

    Args:
        script: the script's `__file__`; its name is the experiment's.
        experiment: an `Experiment`.
    """
    with readable_errors():
        options = parse_options(option_parser(experiment.epochs))
        run_experiment(Path(script).stem, experiment, options)
        print(f"Next:            {command('compare.py', options)}")


def run_experiment(name, experiment, options, save_as=None, save_model=None):
    """Train, evaluate after each epoch, and leave NAME.png, NAME.csv and NAME.json.

    Args:
        name, experiment: the experiment; see `run_test_harness`.
        options: what `parse_options` returned.
        save_as: what the files are called, NAME above. None names them after the experiment.
        save_model: function of the trained model and its result. None discards the model.
    """
    with begin_run(save_as or name, name, experiment, options) as run:
        if run.finished:  # --resume, but only the picture may be missing
            return summarize_diagnostics(*run.picture)

        # 1. Load the images and their labels: begin_run has found the dataset, or downloaded it.
        trainX, trainY, testX, testY = load_dataset(run.dataset, options.limit)
        # The tutorial evaluates on the test set after each epoch: run.evaluated_on is "test". To
        # choose between models, use --validation holdout or --fold, which hold training images out.
        (trainX, trainY), (valX, valY), (testX, testY) = train_val_test_split(
            (trainX, trainY), (testX, testY), run.evaluated_on, options.fold
        )

        # 2. Prepare the pixels: each batch calls prep_pixels when it is needed.
        train = TrainingBatches(trainX, trainY, run.batch_size, prep_pixels, experiment.augment)
        validation = Batches(valX, valY, run.batch_size, prep_pixels)

        # 3. Define the model, with a fixed seed: the same machine repeats the same numbers.
        tf.config.experimental.enable_op_determinism()
        keras.utils.set_random_seed(options.seed)
        # Weights stay in float32, layers compute in bfloat16: https://arxiv.org/abs/1710.03740
        keras.config.set_dtype_policy("mixed_bfloat16" if options.mixed_precision else "float32")
        model = experiment.define_model(trainX.shape[1:], trainY.shape[1])
        if experiment.learning_rate:
            model.optimizer.learning_rate = experiment.learning_rate(len(train), run.epochs)
        if experiment.initialize:
            experiment.initialize(model, trainX)
        run.start_or_resume(model)
        fuse_batch_norm(model)  # computes Keras's layers faster, see machinery/fast_layers.py

        # 4. Evaluate: train, and evaluate after each epoch.
        model.fit(
            train,
            initial_epoch=run.epochs_trained,
            epochs=run.last_epoch,
            shuffle=False,  # the run's callbacks shuffle, so that a resumed run can repeat it
            validation_data=validation if run.evaluated_on else None,
            callbacks=run.callbacks(train),  # they fill run.history, too
            verbose=1 if sys.stdout.isatty() else 2,  # a log file gets a line per epoch, no bar
        )
        tested = model
        if experiment.test_time_augmentation:
            tested = experiment.test_time_augmentation(model)
        measured = {}
        if run.evaluated_on:  # in a plain run, as after the last epoch
            test = Batches(testX, testY, run.batch_size, prep_pixels)
            measured = tested.evaluate(test, verbose=0, return_dict=True)
        if options.fold:  # run_all.py --folds looks for doubtful labels among the predictions
            run.save_predictions(tested.predict(validation, verbose=0), valY)

        # 5. Present the accuracy and the learning curves.
        result = run.result_of(model, measured, len(trainX), len(valX), len(testX))
        print(accuracy_line(result["test_accuracy"], run.remarks()))
        if save_model:
            save_model(model, result)  # before the run counts as finished
        run.save_result()
        summarize_diagnostics(*run.picture)


def load_dataset(dataset=None, limit=None):
    """Return images and labels as `trainX, trainY, testX, testY`.

    Args:
        dataset: a `data.dataset.Dataset`; None finds or downloads the whole of CIFAR-10.
        limit: keep this many training images, and a fifth as many test images but at least one of
            each class, balanced over the classes. None keeps all.

    Returns:
        trainX, testX: uint8 images in 0..255, (n, 32, 32, 3) of CIFAR-10.
        trainY, testY: float64 one-hot labels, (n, 10) of CIFAR-10.

    Raises:
        UsageError: if CIFAR-10 can't be had, or the limit is above the number of training images
            or below that of classes.
    """
    dataset = dataset or find_dataset()
    trainX, trainY, testX, testY = dataset.arrays().values()
    classes = len(dataset.class_names)
    if limit:
        train = balanced_indices(trainY, limit)
        test = balanced_indices(testY, min(len(testX), max(classes, limit // 5)))
        trainX, trainY, testX, testY = trainX[train], trainY[train], testX[test], testY[test]
    trainY, testY = (keras.utils.to_categorical(labels, classes) for labels in (trainY, testY))
    return trainX, trainY, testX, testY


def prep_pixels(*images):
    """Scale images from 0..255 to [0, 1].

    As float32, images take four times the memory of uint8: the harness scales a batch at a time.

    Args:
        images: one or more uint8 arrays, the tutorial's `train, test` for example.

    Returns:
        A list of as many float32 arrays, each of its image array's shape.
    """
    return [array.astype(np.float32) / 255 for array in images]


def summarize_diagnostics(history, path, title, loss="loss"):
    """Draw the learning curves: loss above, accuracy below, train blue, test orange.

    Args:
        history: a list for each column of NAME.csv, of a value per epoch; accuracies in percent.
        path: the PNG to write.
        title: of the picture.
        loss: what the loss is made of, for its axis.
    """
    colors = {"train": "tab:blue", "test": "tab:orange", "validation": "tab:orange"}
    figure, (upper, lower) = plt.subplots(2, 1, figsize=(8, 8), sharex=True)
    figure.suptitle(title, wrap=True)
    for axes, metric, label in ((upper, "loss", loss), (lower, "accuracy", "accuracy (%)")):
        for split in (split for split in colors if f"{split}_{metric}" in history):
            axes.plot(
                history["epoch"], history[f"{split}_{metric}"], color=colors[split], label=split,
                marker="o" if len(history["epoch"]) < 10 else None,
            )  # fmt: skip
        axes.set_ylabel(label)
        axes.grid(alpha=0.3)
        axes.legend()
    lower.set_xlabel("epoch")
    lower.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    figure.tight_layout()
    save_figure(figure, path)
