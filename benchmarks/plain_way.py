"""The plain way to train: what `experiments/in_one_file.py` does, with an experiment's network.

Who runs that file has TensorFlow's defaults, which are fixed when TensorFlow is imported. So it
comes first here, and what imports `machinery`, which changes them, only in the function.
"""

from experiments import in_one_file, load_experiment

from workers import BATCH_SIZE, TakeTurns


def train_plainly(connection, name, options, most_steps=None):
    """Train as one would without the harness.

    Args:
        connection, most_steps: see `workers.TakeTurns`.
        name: of the experiment.
        options: `data`, `sample` and `images`: which images, and how many.
    """
    from data.download import find_dataset
    from harness import load_dataset

    dataset = find_dataset(options.data, options.sample)
    trainX, trainY, testX, testY = load_dataset(dataset, options.images)
    del dataset  # in_one_file.py does not keep the bytes either
    trainX, testX = in_one_file.prep_pixels(trainX, testX)
    model = load_experiment(name).define_model()
    while True:
        # A fit for each turn: TensorFlow's tuning of input pipelines, which a longer one would
        # leave running, can make it wait for as long as the other ways' turns take.
        in_one_file.train_and_evaluate(
            model,
            trainX,
            trainY,
            testX,
            testY,
            batch_size=BATCH_SIZE,
            callbacks=[TakeTurns(connection, most_steps)],
            verbose=2,  # as in the harness where there is no terminal
        )
