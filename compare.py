"""Compare runs: a table of their accuracies, and pictures of all their learning curves.

Runs that differ in nothing but the seed are taken together: the table has their mean and standard
deviation, the pictures draw them in one colour.
"""

import os
from pathlib import Path
from statistics import mean, stdev

from experiments import EXPERIMENTS
from extensions import EXTENSIONS
from machinery.errors import UsageError, readable_errors
from machinery.figures import save_figure
from machinery.options import RUNS, add_out, command, parse_options, script_parser
from machinery.records import join_remarks, read_history, read_result, stopped_early

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter


def read_runs(folders):
    """Return the runs in the folders as `[(label, [(result, history), ...]), ...]`.

    Runs that differ in nothing but the seed share a label. They come in the tutorial's order, and
    after them all others.

    Raises:
        UsageError: if a folder is missing, or none of them holds a run.
    """
    paths = {}  # by where they really are: a folder may be in one that is named, too
    for folder in map(Path, folders):
        if not folder.is_dir():
            raise UsageError(f"there is no folder {folder}")
        for path in sorted([*folder.glob("*.json"), *folder.glob("seed_*/*.json")]):
            paths.setdefault(path.resolve(), path)
    alike = {}
    for path in paths.values():
        try:
            run = path, read_result(path), read_history(path.with_suffix(".csv"))
        except UsageError as error:
            print(f"Left out: {error}")
            continue
        settings = {**run[1]["settings"], "seed": None}
        unfinished = not run[1]["finished"]
        key = path.stem, str(settings), run[1]["remark"], unfinished
        alike.setdefault(key, []).append(run)
    if not alike:
        raise UsageError(
            f"no runs in {', '.join(map(str, folders))}: "
            f"`{command('experiments/baseline1.py')} --sample` makes one"
        )
    labels = []
    for runs in alike.values():
        seeds = {result["settings"]["seed"] for _, result, _ in runs}
        for together in [runs] if len(seeds) == len(runs) else [[run] for run in runs]:
            label = together[0][0].stem
            if len(folders) > 1:
                parents = [path.parent.resolve() for path, _, _ in together]
                label = f"{Path(os.path.commonpath(parents)).name}/{label}"
            if len(together) > 1:
                label += f" ({len(together)} seeds)"
            labels.append((label, [(result, history) for _, result, history in together]))

    def place_in_tutorial(label):
        name, names = label[1][0][0]["settings"]["experiment"], (*EXPERIMENTS, *EXTENSIONS)
        return names.index(name) if name in names else len(names)

    return sorted(labels, key=place_in_tutorial)


def remark(result):
    """Say why a run should not be compared with the others, "" if nothing speaks against it."""
    unfinished = "" if result["finished"] else "unfinished, go on with --resume"
    return join_remarks(unfinished, result["remark"], stopped_early(result))


def print_table(labels):
    width = max(len(label) for label, _ in labels)
    print(f"{'':{width}}  published  measured  +-       epochs      time   PFLOP")
    for label, runs in labels:
        result, history = runs[0]
        accuracies = [result["test_accuracy"] for result, _ in runs if result["finished"]]
        measured = f"{mean(accuracies):.2f} %" if accuracies else "-"
        deviation = f"{stdev(accuracies):.2f}" if len(accuracies) > 1 else ""
        planned, done = result["settings"]["epochs"], len(history["epoch"])
        epochs = f"{done}" if done == planned else f"{done} of {planned}"
        time = mean(sum(history.get("seconds", [])) for _, history in runs)
        minutes, seconds = divmod(round(time), 60)
        petaflop = result.get("training_petaflop")
        petaflop = f"{petaflop:.4f}" if petaflop else "-"
        published = result["published_accuracy"]
        published = f"{published:.2f} %" if published else "-"
        print(
            f"{label:{width}}  {published:>9}  {measured:>8}  "
            f"{deviation:4}  {epochs:>9}  {minutes:4}:{seconds:02}  {petaflop:>6}  "
            f"{remark(result)}".rstrip()
        )
    print(
        "Published: by the tutorial; of a speed run: its target. Measured: accuracy on the test\n"
        "images at the end of the run, the mean of several seeds +- their standard deviation.\n"
        "Time: minutes:seconds, evaluations after each epoch included.\n"
        "PFLOP: the 10^15 multiplications and additions of convolutions and dense layers."
    )


def draw_curves(labels, path):
    """Draw the loss and accuracy on the test (or validation) images of all runs over each other."""
    figure, (loss, accuracy) = plt.subplots(
        2, 1, figsize=(10, 10), sharex=True, layout="constrained"
    )
    figure.suptitle("Learning curves on the test images (dashed: validation images)")
    for _, split, history, style in curves(labels):
        loss.plot(history["epoch"], history.get(f"{split}_loss", []), **style)
        accuracy.plot(history["epoch"], history.get(f"{split}_accuracy", []), **style)
    loss.set_ylabel("loss, with weight decay and label smoothing")
    loss.grid(alpha=0.3)
    accuracy.set_xlabel("epoch")
    accuracy.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    finish(figure, accuracy, path)


def draw_time(labels, path):
    """Draw the accuracy of all runs against the time that it took to get there."""
    figure, accuracy = plt.subplots(figsize=(10, 7), layout="constrained")
    figure.suptitle("Accuracy on the test images (dashed: validation images) against time")
    for result, split, history, style in curves(labels):
        minutes = np.cumsum(history.get("seconds", [])) / 60
        accuracy.plot(minutes, history.get(f"{split}_accuracy", []), **style)
        if result["finished"]:
            accuracy.plot(minutes[-1], result["test_accuracy"], "*", color=style["color"])
    accuracy.set_xscale("log")
    accuracy.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    accuracy.xaxis.set_major_formatter("{x:g}")
    accuracy.xaxis.set_minor_formatter(NullFormatter())
    accuracy.set_xlabel("training time, evaluations included (minutes); star: result of the run")
    finish(figure, accuracy, path)


def curves(labels):
    """Yield `(result, split, history, style)` of each run, the same colour in all pictures."""
    colours = *plt.get_cmap("tab10").colors, "black", *plt.get_cmap("Dark2").colors
    for number, (label, runs) in enumerate(labels):
        for repetition, (result, history) in enumerate(runs):
            split = "validation" if result["settings"]["validation"] == "holdout" else "test"
            shown = f"{label} ({remark(result)})" if remark(result) else label
            style = {
                "label": "_" if repetition else shown,  # one line in the legend for all seeds
                "color": colours[number % len(colours)],
                "linestyle": "--" if split == "validation" else "-",
                "marker": "o" if len(history["epoch"]) == 1 else None,
            }
            yield result, split, history, style


def finish(figure, accuracy, path):
    accuracy.set_ylabel("accuracy (%)")
    accuracy.grid(alpha=0.3)
    handles, labels = accuracy.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize="small")
    save_figure(figure, path)
    print(f"Picture: {path}")


def main():
    parser = script_parser("%(prog)s [options] [DIR ...]")
    parser.add_argument("folders", type=os.path.expanduser, nargs="*", default=[RUNS],
        metavar="DIR",
        help=f"folders with runs ({RUNS})")  # fmt: skip
    add_out(parser)
    options = parse_options(parser)

    labels = read_runs(options.folders)
    print_table(labels)
    draw_curves(labels, Path(options.out) / "compare.png")
    draw_time(labels, Path(options.out) / "compare_time.png")


if __name__ == "__main__":
    with readable_errors():
        main()
