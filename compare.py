"""Compare runs: a table of their accuracies, and pictures of all their learning curves."""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

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


def draw_curves(runs, path):
    """Draw the loss and accuracy on the test (or validation) images of all runs over each other."""
    figure, (loss, accuracy) = plt.subplots(
        2, 1, figsize=(10, 10), sharex=True, layout="constrained"
    )
    figure.suptitle("Learning curves on the test images (dashed: validation images)")
    for split, history, style in curves(runs):
        loss.plot(history["epoch"], history.get(f"{split}_loss", []), **style)
        accuracy.plot(history["epoch"], history.get(f"{split}_accuracy", []), **style)
    loss.set_ylabel("cross-entropy loss")
    loss.grid(alpha=0.3)
    accuracy.set_xlabel("epoch")
    accuracy.xaxis.get_major_locator().set_params(integer=True)
    finish(figure, accuracy, path)


def draw_time(runs, path):
    """Draw the accuracy of all runs against the time that it took to get there."""
    figure, accuracy = plt.subplots(figsize=(10, 7), layout="constrained")
    figure.suptitle("Accuracy on the test images (dashed: validation images) against time")
    for (_, result, _), (split, history, style) in zip(runs, curves(runs), strict=True):
        minutes = np.cumsum(history.get("seconds", [])) / 60
        accuracy.plot(minutes, history.get(f"{split}_accuracy", []), **style)
        if result["finished"]:
            accuracy.plot(minutes[-1], result["test_accuracy"], "*", color=style["color"])
    accuracy.set_xscale("log")
    accuracy.xaxis.set_major_formatter("{x:g}")
    accuracy.set_xlabel("training time, evaluations included (minutes); star: result of the run")
    finish(figure, accuracy, path)


def curves(runs):
    """Yield `(split, history, style)` of each run, the same colour in all pictures."""
    colours = plt.get_cmap("tab10").colors + plt.get_cmap("Dark2").colors
    for number, (label, result, history) in enumerate(runs):
        split = "validation" if result["settings"]["validation"] == "holdout" else "test"
        style = {
            "label": f"{label} ({remark(result)})" if remark(result) else label,
            "color": colours[number % len(colours)],
            "linestyle": "--" if split == "validation" else "-",
            "marker": "o" if len(history["epoch"]) == 1 else None,
        }
        yield split, history, style


def finish(figure, accuracy, path):
    accuracy.set_ylabel("accuracy (%)")
    accuracy.grid(alpha=0.3)
    handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small")
    with replace_when_complete(path) as temporary:
        figure.savefig(temporary, dpi=100)
    plt.close(figure)
    print(f"Picture: {path}")


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
    draw_curves(runs, Path(options.out) / "compare.png")
    draw_time(runs, Path(options.out) / "compare_time.png")


if __name__ == "__main__":
    with readable_errors():
        main()
