from math import gamma, pi, sqrt

from machinery.intervals import T_975, half_width_95, share_interval_95

import numpy as np
import pytest


@pytest.mark.parametrize("count", [2, 3, 10, 40])
def test_interval_holds_the_truth_in_95_of_100_cases(count):
    random = np.random.default_rng(0)
    samples = random.normal(70, 2, size=(4000, count))
    held = [abs(np.mean(values) - 70) <= half_width_95(values) for values in samples.tolist()]
    assert 0.94 < np.mean(held) < 0.96


@pytest.mark.parametrize("freedom", range(1, 1 + len(T_975)))
def test_students_t_is_where_97_5_percent_of_its_density_lie_below(freedom):
    t, steps = T_975[freedom - 1], 100_000
    scale = gamma((freedom + 1) / 2) / gamma(freedom / 2) / sqrt(freedom * pi)

    def density(x):
        return scale * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)

    below = 0.5 + density((np.arange(steps) + 0.5) * t / steps).sum() * t / steps
    assert abs(below - 0.975) / density(t) <= 0.00051  # the table has three decimals


def test_interval_of_folds_is_wider_as_they_share_their_training_images():
    values = [70.0, 71.0, 73.0, 70.5, 69.0]
    ratio = half_width_95(values, folds=5) / half_width_95(values)
    assert ratio == pytest.approx(((1 / 5 + 1 / 4) / (1 / 5)) ** 0.5)


def test_one_run_has_no_interval():
    assert half_width_95([70.0]) is half_width_95([]) is None


@pytest.mark.parametrize(
    ("count", "total", "interval"),
    [(8, 10, (0.490, 0.943)), (0, 10, (0.0, 0.278)), (500, 1000, (0.469, 0.531))],
)
def test_interval_of_a_share_is_wilsons(count, total, interval):
    assert share_interval_95(count, total) == pytest.approx(interval, abs=0.001)


def test_share_is_from_0_to_1():
    """Of 5, for example, a rounding error is below 0, and was printed as -0.0 %."""
    for total in range(1, 100):
        for share in (*share_interval_95(0, total), *share_interval_95(total, total)):
            assert 0 <= share <= 1 and f"{share:.1f}"[0] != "-"
