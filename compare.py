"""Compare runs: a table of their accuracies, and one picture with all their learning curves."""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt

from dataset import replace_when_complete
from options import UsageError, readable_errors, writable_folder
from results import read_history, read_result


def read_runs(folders):
    """Return `(label, result, history)` of each run in the folders, worst published one first.

    Raises:
        UsageError: if a folder is missing, or none of them holds a run.
    """
    runs = []
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}")
        for path in sorted(folder.glob("*.json")):
            label = path.stem if len(folders) == 1 else f"{folder.name}/{path.stem}"
            try:
                runs.append((label, read_result(path), read_history(path.with_suffix(".csv"))))
            except UsageError as error:
                print(f"Left out: {error}")
    if not runs:
        raise UsageError(
            f"no runs in {', '.join(map(str, folders))}: "
            "`python experiments/baseline1.py --sample --epochs 10` makes one"
        )
    return sorted(runs, key=lambda run: run[1]["published_accuracy"])


def remark(result):
    """Say why a run should not be compared with the others, "" if nothing speaks against it."""
    remarks = [] if result["finished"] else ["unfinished, go on with --resume"]
    if result["remark"]:
        remarks.append(result["remark"])
    return "; ".join(remarks)


def print_table(runs):
    width = max(len(label) for label, _, _ in runs)
    print(f"{'':{width}}  published  measured     epochs      time")
    for label, result, history in runs:
        measured = f"{result['test_accuracy']:.2f} %" if result["finished"] else "-"
        planned, done = result["settings"]["epochs"], len(history["epoch"])
        epochs = f"{done}" if done == planned else f"{done} of {planned}"
        minutes, seconds = divmod(round(sum(history.get("seconds", []))), 60)
        print(
            f"{label:{width}}  {result['published_accuracy']:7.2f} %  {measured:>8}  "
            f"{epochs:>9}  {minutes:4}:{seconds:02}  {remark(result)}".rstrip()
        )
    print("Accuracy on the test images at the end of the run; time in minutes:seconds of training.")


def draw(runs, path):
    """Draw the loss and accuracy on the test (or validation) images of all runs over each other."""
    figure, (loss, accuracy) = plt.subplots(
        2, 1, figsize=(10, 10), sharex=True, layout="constrained"
    )
    figure.suptitle("Learning curves on the test images (dashed: validation images)")
    colours = plt.get_cmap("tab10").colors + plt.get_cmap("Dark2").colors
    for number, (label, result, history) in enumerate(runs):
        split = "validation" if result["settings"]["validation"] == "holdout" else "test"
        style = {
            "label": f"{label} ({remark(result)})" if remark(result) else label,
            "color": colours[number % len(colours)],
            "linestyle": "--" if split == "validation" else "-",
            "marker": "o" if len(history["epoch"]) == 1 else None,
        }
        loss.plot(history["epoch"], history.get(f"{split}_loss", []), **style)
        accuracy.plot(history["epoch"], history.get(f"{split}_accuracy", []), **style)
    loss.set_ylabel("cross-entropy loss")
    accuracy.set_ylabel("accuracy (%)")
    accuracy.set_xlabel("epoch")
    for axes in (loss, accuracy):
        axes.grid(alpha=0.3)
    handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small")
    accuracy.xaxis.get_major_locator().set_params(integer=True)
    with replace_when_complete(path) as temporary:
        figure.savefig(temporary, dpi=100)


def main():
    parser = argparse.ArgumentParser(description=__doc__, usage="%(prog)s [options] [DIR ...]")
    parser.add_argument("folders", nargs="*", default=["runs"], metavar="DIR",
        help="folders with runs (runs)")  # fmt: skip
    parser.add_argument("--out", default="runs", metavar="DIR",
        help="folder for the picture (%(default)s)")  # fmt: skip
    options = parser.parse_args()

    runs = read_runs(options.folders)
    writable_folder(parser, "--out", options.out)
    print_table(runs)
    path = Path(options.out) / "compare.png"
    draw(runs, path)
    print(f"Picture: {path}")


if __name__ == "__main__":
    with readable_errors():
        main()
