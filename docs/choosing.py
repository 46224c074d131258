"""Choose among six experiments in three ways, and see how far each choice's estimate is off.

docs/choosing.md has the commands that make the runs, and what this prints about them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from data.batches import Batches
from data.splits import balanced_indices
from harness import load_dataset, prep_pixels
from machinery.errors import readable_errors
from machinery.final_model import load_final_model
from machinery.options import add_out, parse_options, script_parser
from machinery.records import read_history, read_result

import numpy as np

CANDIDATES = (
    "baseline2",
    "baseline3",
    "dropout",
    "augmentation",
    "dropout_augmentation",
    "learning_rate_01",
)
FOLDS = 5
DRAWS = 2000


def main():
    parser = script_parser()
    add_out(parser, "runs/choosing")
    options = parse_options(parser)
    out = Path(options.out)

    _, _, images, labels = load_dataset()
    labels = labels.argmax(axis=1)
    right = np.array([is_right(out / f"{name}.h5", images, labels) for name in CANDIDATES])
    seen = balanced_indices(labels, 400)  # the test images of --limit 2000
    others = np.delete(right, seen, axis=1)
    truth = 100 * others.mean(axis=1)

    estimates = {
        f"{len(seen)} test images": 100 * right[:, seen].mean(axis=1),
        "held-out tenth": np.array([last_validation(out / "holdout", at) for at in CANDIDATES]),
        f"{FOLDS} folds": np.mean(
            [
                [last_validation(out / f"folds/fold_{k}_of_{FOLDS}", at) for at in CANDIDATES]
                for k in range(1, FOLDS + 1)
            ],
            axis=0,
        ),
    }
    print_row("", *estimates, f"{others.shape[1]:,} other test images")
    print_row("---", *["---:"] * (len(estimates) + 1))
    for number, name in enumerate(CANDIDATES):
        accuracies = [estimate[number] for estimate in (*estimates.values(), truth)]
        print_row(f"`{name}`", *(f"{accuracy:.1f} %" for accuracy in accuracies))

    print()
    print_row("chosen by", "experiment", "estimate", "truth", "estimate is off by")
    print_row("---", "---", "---:", "---:", "---:")
    for way, estimate in estimates.items():
        best = estimate.argmax()
        told, true = estimate[best], truth[best]
        print_row(way, f"`{CANDIDATES[best]}`", f"{told:.1f} %", f"{true:.1f} %",
                  f"{told - true:+.1f} points")  # fmt: skip

    chance = np.random.default_rng(0)
    errors = [choose_and_report(right, chance, len(seen)) for _ in range(DRAWS)]
    by_chosen, by_any = np.mean(errors, axis=0)
    print(
        f"\n{DRAWS:,} draws of {len(seen)} test images: the best accuracy of the six is "
        f"{by_chosen:.2f} points too high on average, that of any one of them {by_any:.2f}."
    )


def is_right(path, images, labels):
    """Return whether a model gets each image right, bool (n,)."""
    model, _ = load_final_model(path)
    probabilities = model.predict(Batches(images, labels, 64, prep_pixels), verbose=0)
    return probabilities.argmax(axis=1) == labels


def last_validation(folder, name):
    """Return the accuracy of a finished run on its held-out images, in percent."""
    assert read_result(folder / f"{name}.json")["finished"], f"{folder}/{name} is unfinished"
    return read_history(folder / f"{name}.csv")["validation_accuracy"][-1]


def choose_and_report(right, chance, count):
    """Choose by some test images; return how much too high the accuracies on these are.

    Args:
        right: bool (candidates, n). chance: a NumPy generator. count: of images to choose by.

    Returns:
        `(of the best, of any)`, in points: that of the best candidate, and the mean of all.
    """
    drawn = chance.permutation(right.shape[1])
    told, true = (right[:, part].mean(axis=1) for part in (drawn[:count], drawn[count:]))
    return 100 * (told - true)[told.argmax()], 100 * (told - true).mean()


def print_row(*cells):
    print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    with readable_errors():
        main()
