"""What a model does well and badly: its classes, its worst mistakes, how far to trust it.

Probabilities are float (n, classes), labels and predictions int (n,), the classes' indices.
"""

from machinery.figures import save_figure

import matplotlib.pyplot as plt
import numpy as np

BINS = 15  # as in Guo et al. 2017
SHOWN = 25  # pictures at most, or classes: more would not be readable


def confusion_matrix(labels, predictions, classes):
    """Return how many images of each class (rows) were taken for which one (columns)."""
    counts = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(counts, (labels, predictions), 1)
    return counts


def with_temperature(probabilities, temperature):
    """Return the probabilities that the softmax would give if its inputs were divided by T.

    Guo et al. 2017, "On Calibration of Modern Neural Networks", section 4.2,
    https://arxiv.org/abs/1706.04599
    """
    scores = np.log(np.maximum(probabilities, 1e-12)) / temperature
    scores = np.exp(scores - scores.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def fit_temperature(probabilities, labels):
    """Return the temperature with which the labels are likeliest, from 0.1 to 10."""
    of_images = np.arange(len(labels))
    temperatures = np.geomspace(0.1, 10, 401)

    def loss(temperature):
        return -np.log(with_temperature(probabilities, temperature)[of_images, labels]).mean()

    return float(min(temperatures, key=loss))


def calibration(probabilities, labels):
    """Compare how sure a model is with how often it is right (Guo et al. 2017, section 2).

    Returns:
        `(confidences, accuracies, shares, error)`: the means in each of `BINS` bins of the largest
        probability, NaN for an empty one; which share of the images is in it; the expected
        calibration error, the mean of their difference.
    """
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.minimum((sure * BINS).astype(int), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    with np.errstate(invalid="ignore"):
        confidences = np.bincount(bins, sure, BINS) / counts
        accuracies = np.bincount(bins, right, BINS) / counts
    shares = counts / len(labels)
    return confidences, accuracies, shares, np.nansum(shares * abs(confidences - accuracies))


def draw_confusion(labels, predictions, class_names, title, path):
    """Draw how many images of each class were taken for which one.

    Of many classes, those that were part of the most mistakes.
    """
    counts = confusion_matrix(labels, predictions, len(class_names))
    shares = counts / counts.sum(axis=1, keepdims=True)
    if len(class_names) > SHOWN:
        mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
        shown = np.sort(np.argsort(-mistakes, kind="stable")[:SHOWN])
        title += f"\n{len(shown)} of {len(class_names):,} classes, those in the most mistakes"
        counts, shares = counts[np.ix_(shown, shown)], shares[np.ix_(shown, shown)]
        class_names = [class_names[label] for label in shown]
    size = max(6, 0.55 * len(class_names) + 2)
    figure, axes = plt.subplots(figsize=(size + 1, size - 0.5), layout="constrained")
    image = axes.imshow(100 * shares, cmap="Blues", vmin=0, vmax=100)
    figure.colorbar(image, label="of the images of a class (%)", shrink=0.8)
    for (row, column), count in np.ndenumerate(counts):
        color = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, count, ha="center", va="center", color=color, fontsize="small")
    ticks = range(len(class_names))
    axes.set_xticks(ticks, class_names, rotation=90)
    axes.set_yticks(ticks, class_names)
    axes.set(xlabel="what the model says", ylabel="what it is")
    axes.set_title(title, wrap=True)
    save_figure(figure, path)


def draw_mistakes(images, labels, probabilities, class_names, title, path):
    """Draw the mistakes that the model was surest of.

    Args:
        images: uint8 (n, size, size, 3).
    """
    predictions, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions != labels)
    worst = wrong[np.argsort(-sure[wrong], kind="stable")][:SHOWN]
    captions = [
        f"{class_names[predictions[index]]} {100 * sure[index]:.0f} %\n"
        f"is: {class_names[labels[index]]}"
        for index in worst
    ]
    draw_images(images[worst], captions, f"The surest mistakes of {title}", path)


def draw_doubtful_labels(images, labels, probabilities, class_names, title, path):
    """Draw the images whose label networks that were not trained on them doubt most.

    By how much less probable it is than the likeliest other class: the normalized margin of
    Northcutt et al. 2021, "Confident Learning", https://arxiv.org/abs/1911.00068.

    Args:
        images: uint8 (n, size, size, 3).
    """
    is_label = np.eye(len(class_names), dtype=bool)[labels]
    others = np.where(is_label, 0, probabilities)
    margins = probabilities[is_label] - others.max(axis=1)
    worst = np.argsort(margins, kind="stable")[:SHOWN]
    captions = [
        f"image {index}: {class_names[labels[index]]}?\n"
        f"{class_names[probabilities[index].argmax()]} {100 * probabilities[index].max():.0f} %"
        for index in worst
    ]
    draw_images(images[worst], captions, f"The most doubtful labels, says {title}", path)


def draw_images(images, captions, title, path):
    """Draw `SHOWN` images at most, each below its caption."""
    figure, axes = plt.subplots(5, 5, figsize=(9, 10.5), layout="constrained")
    figure.suptitle(title, wrap=True)
    for ax in axes.flat:
        ax.axis("off")
    for ax, image, caption in zip(axes.flat, images, captions, strict=False):
        ax.imshow(image)
        ax.set_title(caption, fontsize="small")
    save_figure(figure, path)


def draw_reliability(curves, title, path):
    """Draw how often the model is right against how sure it is.

    Args:
        curves: what `calibration` returned, by what to call it.
    """
    figure, (upper, lower) = plt.subplots(
        2, 1, figsize=(6, 7.5), sharex=True, height_ratios=(3, 1), layout="constrained"
    )
    upper.plot([0, 100], [0, 100], color="gray", linestyle=":", label="as sure as it is right")
    for name, (confidences, accuracies, shares, error) in curves.items():
        label = f"{name}: off by {100 * error:.1f} points on average"
        upper.plot(100 * confidences, 100 * accuracies, marker="o", label=label)
        edges = np.linspace(0, 100, len(shares) + 1)
        lower.stairs(100 * shares, edges)
    upper.set(ylabel="is right (%)")
    upper.set_title(title, wrap=True)
    upper.legend()
    lower.set(xlabel="is sure: the largest probability (%)", ylabel="images (%)")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    save_figure(figure, path)
