"""Choose among six experiments in three ways, and see how far each choice's estimate is off.

docs/choosing.md has the commands that make the runs, and what this prints and draws about them.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this copy of the project

from compare import print_cells
from data.batches import Batches
from data.download import find_dataset
from data.splits import balanced_indices
from harness import load_dataset, prep_pixels
from machinery.errors import UsageError, readable_errors
from machinery.figures import save_figure
from machinery.final_model import load_final_model
from machinery.options import add_data, add_out, parse_options, script_parser
from machinery.records import read_history, read_result

import matplotlib.pyplot as plt
import numpy as np

CANDIDATES = (
    "baseline2",
    "baseline3",
    "dropout",
    "augmentation",
    "dropout_augmentation",
    "learning_rate_01",
)
TRAINING_IMAGES = 2000
FOLDS = 5
DRAWS = 2000
MARKERS = "xs^"


def main():
    parser = script_parser()
    add_data(parser)
    add_out(parser, "runs/choosing")
    options = parse_options(parser)
    out = Path(options.out)

    folds = [out / f"folds/fold_{number}_of_{FOLDS}" for number in range(1, FOLDS + 1)]
    held_out = np.array([validated(out / "holdout", name) for name in CANDIDATES])
    of_folds = np.array([[validated(fold, name) for fold in folds] for name in CANDIDATES])

    _, _, images, labels = load_dataset(find_dataset(options.data, options.sample))
    labels = labels.argmax(axis=1)
    right = np.array([is_right(out / f"{name}.h5", images, labels) for name in CANDIDATES])
    seen = balanced_indices(labels, TRAINING_IMAGES // 5)  # the test images of --limit
    others = np.delete(right, seen, axis=1)
    truth = 100 * others.mean(axis=1)
    truth_name = f"truth: {others.shape[1]:,} other test images"
    estimates = {
        f"{len(seen)} test images": 100 * right[:, seen].mean(axis=1),
        "held-out tenth": held_out,
        f"{FOLDS} folds": of_folds.mean(axis=1),
    }
    print_cells(["", *estimates, truth_name])
    print_cells(["---", *["---:"] * (len(estimates) + 1)])
    for name, *accuracies in zip(CANDIDATES, *estimates.values(), truth, strict=True):
        print_cells([f"`{name}`", *(f"{accuracy:.1f} %" for accuracy in accuracies)])
    distances = [abs(estimate - truth).mean() for estimate in estimates.values()]
    print_cells(["off by, on average", *(f"{distance:.1f} points" for distance in distances), ""])

    everyone = np.arange(len(CANDIDATES))
    print_choices(everyone, estimates, truth, right, len(seen))
    # Who wins by far is chosen in any way: now without it.
    print_choices(np.delete(everyone, truth.argmax()), estimates, truth, right, len(seen))
    draw(estimates, truth, truth_name, out / "choosing.png")


def is_right(path, images, labels):
    """Return whether a model gets each image right, bool (n,)."""
    model, training = load_final_model(path)
    if training["settings"]["limit"] != TRAINING_IMAGES:
        raise UsageError(f"{path} was not trained with --limit {TRAINING_IMAGES}")
    probabilities = model.predict(Batches(images, labels, 64, prep_pixels), verbose=0)
    return probabilities.argmax(axis=1) == labels


def validated(folder, name):
    """Return the accuracy of a finished run on its held-out images, in percent."""
    result = read_result(folder / f"{name}.json")
    if not result or not result["finished"]:
        raise UsageError(f"there is no finished run {folder / name}: docs/choosing.md says how")
    return read_history(folder / f"{name}.csv")["validation_accuracy"][-1]


def print_choices(among, estimates, truth, right, count):
    """Print which candidate each way chooses, and how far what it says of it is from the truth.

    Args:
        among: the candidates to choose from, int (chosen,).
        estimates: accuracies (candidates,) in percent, by the way. truth: the true ones.
        right: bool (candidates, n), which test images each of them gets right.
        count: of test images to choose by.
    """
    print()
    header = f"chosen from {len(among)} by", "experiment", "estimate", "truth", "off by"
    print_cells(header)
    print_cells(["---", "---", "---:", "---:", "---:"])
    for way, estimate in estimates.items():
        best = among[estimate[among].argmax()]
        told, true = estimate[best], truth[best]
        print_cells([way, f"`{CANDIDATES[best]}`", f"{told:.1f} %", f"{true:.1f} %",
                     f"{told - true:+.1f} points"])  # fmt: skip
    chance = np.random.default_rng(0)
    errors = [choose_and_report(right[among], chance, count) for _ in range(DRAWS)]
    of_chosen, of_any, lost = np.mean(errors, axis=0)
    print(
        f"\n{DRAWS:,} draws of {count} test images to choose from {len(among)} by: the accuracy of "
        f"the chosen one is {of_chosen:.2f} points too high on average, that of any one "
        f"{of_any:.2f}; another one is {lost:.2f} points better."
    )


def choose_and_report(right, chance, count):
    """Choose by some test images, and judge the choice by the others.

    Args:
        right: bool (candidates, n). chance: a NumPy generator. count: of images to choose by.

    Returns:
        `(of the chosen, of any, lost)`, in points: how much too high the accuracy of the chosen
        candidate is, that of any one, and how much better the best one is by the other images.
    """
    drawn = chance.permutation(right.shape[1])
    told, true = (100 * right[:, part].mean(axis=1) for part in (drawn[:count], drawn[count:]))
    chosen = told.argmax()
    return (told - true)[chosen], (told - true).mean(), true.max() - true[chosen]


def draw(estimates, truth, truth_name, path):
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    rows = np.arange(len(CANDIDATES))
    axes.scatter(truth, rows, s=250, color="lightgray", label=truth_name)
    for (way, estimate), marker in zip(estimates.items(), MARKERS, strict=True):
        chosen = estimate.argmax()
        (points,) = axes.plot(estimate, rows, marker, label=f"{way}; circle: chosen")
        axes.plot(estimate[chosen], chosen, "o", markersize=16, fillstyle="none",
                  color=points.get_color())  # fmt: skip
    axes.set_yticks(rows, CANDIDATES)
    axes.invert_yaxis()
    axes.set(xlabel="accuracy (%)", title="What each way of choosing says, and the truth")
    axes.grid(axis="x", alpha=0.3)
    axes.legend()
    save_figure(figure, path)
    print(f"Picture: {path}")


if __name__ == "__main__":
    with readable_errors():
        main()
