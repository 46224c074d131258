"""The tutorial's complete example in one file: baseline3, written plainly with Keras alone.

The first file to read. The other experiments do the same in the harness they share, `harness.py`,
which is faster, is repeatable, and can resume an interrupted run.

    python experiments/in_one_file.py --sample          20 epochs on 1,000 images: a minute
    python experiments/in_one_file.py                   100 epochs on all 50,000: hours

Leaves the learning curves in runs/in_one_file.png.

Source: https://machinelearningmastery.com/how-to-develop-a-cnn-from-scratch-for-cifar-10-photo-classification/
"""

import argparse
import os
from pathlib import Path

# Whatever your keras.json says, or a notebook has set: TensorFlow, and pictures into files.
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["MPLBACKEND"] = "Agg"

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import layers

SAMPLE = Path(__file__).parents[1] / "data/cifar10_sample.npz"  # ships with this project
CACHE = Path(os.path.expanduser("~/.keras/datasets/cifar10-verified.npz"))  # once downloaded
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


# 1. Load the dataset
def load_dataset(path):
    if path.exists():
        with np.load(path) as file:
            trainX, trainY, testX, testY = (file[name] for name in ARRAYS)
    else:
        (trainX, trainY), (testX, testY) = keras.datasets.cifar10.load_data()
    return trainX, keras.utils.to_categorical(trainY), testX, keras.utils.to_categorical(testY)


# 2. Prepare the pixels
def prep_pixels(train, test):
    return train.astype("float32") / 255, test.astype("float32") / 255


# 3. Define the model
RELU = {"activation": "relu", "kernel_initializer": "he_uniform"}


def define_model():
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for filters in (32, 64, 128):
        for _ in range(2):
            model.add(layers.Conv2D(filters, 3, padding="same", **RELU))
        model.add(layers.MaxPooling2D(2))
    model.add(layers.Flatten())
    model.add(layers.Dense(128, **RELU))
    model.add(layers.Dense(10, activation="softmax"))
    model.compile(
        keras.optimizers.SGD(learning_rate=0.001, momentum=0.9),
        loss="categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


# 4. Evaluate the model after each epoch of training
def train_and_evaluate(model, trainX, trainY, testX, testY, **epochs_and_batch_size):
    return model.fit(trainX, trainY, validation_data=(testX, testY), **epochs_and_batch_size)


# 5. Present the learning curves
def summarize_diagnostics(history, path):
    plt.rcdefaults()
    figure, (loss, accuracy) = plt.subplots(2, 1, figsize=(8, 8), sharex=True)
    epochs = range(1, len(history.epoch) + 1)
    figure.suptitle("Learning curves of baseline3 in plain Keras")
    for axes, metric in ((loss, "loss"), (accuracy, "accuracy")):
        axes.plot(epochs, history.history[metric], color="blue", label="train")
        axes.plot(epochs, history.history[f"val_{metric}"], color="orange", label="test")
        axes.set_ylabel(metric)
        axes.legend()
    accuracy.set_xlabel("epoch")
    figure.savefig(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--sample", action="store_true", help="train on 1,000 images")
    sample = parser.parse_args().sample
    try:
        trainX, trainY, testX, testY = load_dataset(SAMPLE if sample else CACHE)
    except Exception as error:  # no network, or a damaged file
        parser.error(f"CIFAR-10 could not be loaded: {error}. Without it: --sample")
    Path("runs").mkdir(exist_ok=True)  # before the training, not after hours of it
    trainX, testX = prep_pixels(trainX, testX)
    model = define_model()
    epochs, batch_size = (20, 16) if sample else (100, 64)
    history = train_and_evaluate(
        model, trainX, trainY, testX, testY, epochs=epochs, batch_size=batch_size
    )
    _, accuracy = model.evaluate(testX, testY, verbose=0)
    print(f"> {100 * accuracy:.3f}")
    summarize_diagnostics(history, "runs/in_one_file.png")
    print("Learning curves: runs/in_one_file.png")
