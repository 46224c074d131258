"""How far the mean of a few runs, or a share of a few images, may be from the truth.

Student 1908, "The Probable Error of a Mean"; for folds, Nadeau and Bengio 2003, "Inference for the
Generalization Error", section 3: their training images overlap, so they vary together.
"""

from math import sqrt
from statistics import stdev

# Student's t, below which 97.5 % lie, for 1, 2, 3 and more degrees of freedom. Above 30 it hardly
# changes any more.
T_975 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160,
    2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056,
    2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
Z_975 = 1.96  # the same of a normal distribution


def half_width_95(values, folds=None):
    """Return d so that mean ± d holds the truth in 95 of 100 cases, None of fewer than two values.

    Args:
        values: accuracies of runs that differ in the seed, or in the fold, or differences of them.
        folds: of how many folds they are. None if they are seeds, which are independent.
    """
    if len(values) < 2:
        return None
    t = T_975[min(len(values) - 1, len(T_975)) - 1]
    return t * stdev(values) * sqrt(1 / len(values) + (1 / (folds - 1) if folds else 0))


def share_interval_95(count, total):
    """Return the 95 % interval of the share that `count` of `total` is an estimate of.

    Wilson 1927, "Probable Inference, the Law of Succession, and Statistical Inference"
    """
    share, z2 = count / total, Z_975**2
    center = (share + z2 / (2 * total)) / (1 + z2 / total)
    half_width = sqrt(share * (1 - share) / total + z2 / (4 * total**2)) * Z_975 / (1 + z2 / total)
    return max(0.0, center - half_width), min(1.0, center + half_width)  # but for rounding errors
