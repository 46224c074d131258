"""The pictures of many runs: their learning curves over each other.

All take a list of `compare.Row`, and the PNG to write.
"""

import textwrap

from machinery.figures import save_figure
from machinery.records import evaluated_on

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter

LEAST_FOR_A_BAND = 3  # of fewer runs, a line each
WIDTH_OF_LEGEND = 37  # in characters
COLOURS = *plt.get_cmap("tab10").colors, "black", *plt.get_cmap("Dark2").colors


def draw_accuracy(rows, path):
    """Draw what each idea is worth: the accuracy against the epoch."""
    axes = new_axes("Accuracy on the test images (dashed: validation images)")
    drawn = [draw_row(axes, row, "epoch", "accuracy", colour) for row, colour in coloured(rows)]
    finish(axes, drawn, "epoch", "accuracy (%)", path)


def draw_loss(rows, path):
    """Draw the loss against the epoch; say of what is not plain cross-entropy what it is."""
    axes = new_axes("Loss on the test images (dashed: validation images)")
    kinds = [{result.get("loss") for result in row.results} for row in rows]
    shared = set().union(*kinds)
    drawn = []
    for (row, colour), kind in zip(coloured(rows), kinds, strict=True):
        end, label, line = draw_row(axes, row, "epoch", "loss", colour)
        # Results of older versions do not say what their loss is.
        special = sorted(kind - {None, "cross-entropy"}) if len(shared) > 1 else []
        drawn.append((end, ", ".join([label, *special]), line))
    loss = shared.pop() if len(shared) == 1 else None
    finish(axes, drawn, "epoch", loss or "loss that the run was trained with", path)


def draw_time(rows, path):
    """Draw the accuracy against the time that it took to get there."""
    axes = new_axes("Accuracy against time on the test images (dashed: validation images)")
    drawn = [draw_row(axes, row, "minutes", "accuracy", colour) for row, colour in coloured(rows)]
    x_label = "training time, evaluations included (minutes); star: result of the run"
    finish(axes, drawn, x_label, "accuracy (%)", path)


def new_axes(title):
    axes = plt.figure(figsize=(10, 6), layout="constrained").add_subplot()
    axes.set_title(title)
    # A speed run takes 4 epochs, the longest experiment 400.
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
    return axes


def coloured(rows):
    """Return `(row, colour)` for each row, the same in all pictures."""
    return [(row, COLOURS[number % len(COLOURS)]) for number, row in enumerate(rows)]


def draw_row(axes, row, x_name, metric, colour):
    """Draw a line for each run of a row, or for three and more their mean and a band around it.

    Args:
        axes: where to.
        row: a `compare.Row`.
        x_name: "epoch" or "minutes".
        metric: "accuracy" or "loss".
        colour: of Matplotlib's.

    Returns:
        `(end, label, line)` for the legend: the last value of the curve, or the mean of several.
    """
    split = evaluated_on(row.settings)
    column = f"{split}_{metric}"
    # The band goes as far as all of its runs.
    epochs = min(len(history["epoch"]) for history in row.histories)
    is_band = len(row.histories) >= LEAST_FOR_A_BAND
    x, y, stars = [], [], []
    for history, result in zip(row.histories, row.results, strict=True):
        times = {"epoch": history["epoch"], "minutes": np.cumsum(history.get("seconds", [])) / 60}
        length = epochs if is_band else None
        x.append(np.array(times[x_name][:length]))
        y.append(np.array(history.get(column, [])[:length]))
        stars.append(None if row.folds else result["test_accuracy"])
    spread = np.std(y, axis=0, ddof=1) if is_band else 0
    if is_band:
        x, y = [np.mean(x, axis=0)], [np.mean(y, axis=0)]
        stars = [None if None in stars else np.mean(stars)]
    for run_x, run_y, star in zip(x, y, stars, strict=True):
        (line,) = axes.plot(
            run_x, run_y, color=colour, marker="o" if len(run_y) == 1 else None,
            linestyle="--" if split == "validation" else "-",
        )  # fmt: skip
        if x_name == "minutes" and star is not None and len(run_x):
            axes.plot(run_x[-1], star, "*", color=colour)
    if is_band:
        axes.fill_between(
            x[0], y[0] - spread, y[0] + spread, color=colour, alpha=0.2, linewidth=0
        )  # fmt: skip
    ends = [run_y[-1] for run_y in y if len(run_y)]
    label = f"{row.label} ({row.remark()})" if row.remark() else row.label
    return (np.mean(ends) if ends else -np.inf), label, line


def finish(axes, drawn, x_label, y_label, path):
    """Add labels and the legend, in the order of the curves' ends, and save the picture."""
    axes.set(xlabel=x_label, ylabel=y_label)
    drawn = sorted(drawn, key=lambda entry: -entry[0])
    texts = [
        textwrap.fill(f"{end:.2f}  {label}" if np.isfinite(end) else label, WIDTH_OF_LEGEND)
        for end, label, _ in drawn
    ]
    figure = axes.figure
    # A line that is itself labelled `_something` would be left out: the legend is told the labels.
    figure.legend(
        [line for *_, line in drawn], texts, loc="outside right upper", fontsize="small",
        title="at the curve's end; band:\nmean ± standard deviation", title_fontsize="small",
    )  # fmt: skip
    lines = "\n".join(texts).count("\n") + 1
    figure.set_figheight(max(6, 1.2 + 0.2 * lines))
    save_figure(figure, path)
    print(f"Picture: {path}")
