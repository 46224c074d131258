from conftest import colours
from machinery import diagnosis
from machinery.diagnosis import (
    calibration,
    confusion_matrix,
    draw_confusion,
    draw_doubtful_labels,
    draw_images,
    draw_mistakes,
    draw_reliability,
    fit_temperature,
    with_temperature,
)

import numpy as np
import pytest

NAMES = ["cat", "dog", "frog"]


@pytest.fixture
def figures(monkeypatch):
    """What is drawn, in place of the files."""
    drawn = []
    monkeypatch.setattr(diagnosis, "save_figure", lambda figure, path: drawn.append(figure))
    return drawn


def test_confusion_has_what_it_is_in_rows_and_what_is_said_in_columns():
    counts = confusion_matrix(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]


def test_of_many_classes_those_in_the_most_mistakes_are_drawn(figures):
    names = [f"class {number}" for number in range(60)]
    labels = np.repeat(np.arange(60), 4)
    labels = np.append(labels, np.full(40, 7))
    predictions = labels.copy()
    predictions[4 * 10 : 4 * 34 : 4] += 24  # of 10 to 33, one is taken for one of 34 to 57
    predictions[4 * 59 : 4 * 59 + 2] = 3
    predictions[-3:] = 3
    draw_confusion(labels, predictions, names, "title", "c.png")
    axes = figures[0].axes[0]
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert shown == [text.get_text() for text in axes.get_xticklabels()]
    assert shown == [names[label] for label in (3, 7, *range(10, 32), 59)]
    assert axes.get_title() == "title\n25 of 60 classes, those in the most mistakes"
    assert {text.get_text() for text in axes.texts} == {"0", "2", "3", "4", "41"}


def test_rows_of_a_confusion_are_coloured_by_their_shares(figures):
    labels = np.array([0] * 4 + [1] * 2 + [2])
    draw_confusion(labels, np.array([0, 0, 0, 1, 1, 1, 0]), NAMES, "title", "c.png")
    axes, bar = figures[0].axes
    shares = axes.images[0].get_array()
    assert shares.tolist() == [[75, 25, 0], [0, 100, 0], [100, 0, 0]]
    assert axes.images[0].get_clim() == (0, 100)
    assert bar.get_ylabel() == "of the images of a class (%)"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("what the model says", "what it is")
    for text, share in zip(axes.texts, shares.flatten(), strict=True):  # is to be read on it
        assert text.get_color() == ("white" if share > 50 else "black")


def true_probabilities(n=20_000):
    """Probabilities, and labels that are drawn from them."""
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([0.5] * 3, size=n)
    labels = (probabilities.cumsum(axis=1) < random.random((n, 1))).sum(axis=1)
    return probabilities, labels


def test_probabilities_that_are_true_are_calibrated():
    probabilities, labels = true_probabilities()
    confidences, accuracies, shares, error = calibration(probabilities, labels)
    assert error < 0.01 and shares.sum() == pytest.approx(1)
    filled = shares > 0.01
    np.testing.assert_allclose(confidences[filled], accuracies[filled], atol=0.05)


def test_temperature_undoes_what_makes_a_model_too_sure():
    probabilities, labels = true_probabilities()
    too_sure = with_temperature(probabilities, 1 / 3)
    assert calibration(too_sure, labels)[3] > 0.05
    temperature = fit_temperature(too_sure, labels)
    assert temperature == pytest.approx(3, rel=0.05)
    scaled = with_temperature(too_sure, temperature)
    assert calibration(scaled, labels)[3] < 0.015
    np.testing.assert_array_equal(scaled.argmax(axis=1), too_sure.argmax(axis=1))


def test_temperature_of_zero_probabilities_is_a_number():
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0]])
    assert np.isfinite(fit_temperature(probabilities, np.array([1, 1])))


def test_surest_mistakes_come_first_with_both_names_and_the_probability(monkeypatch):
    drawn = []
    monkeypatch.setattr(diagnosis, "draw_images", lambda *arguments: drawn.append(arguments))
    labels = np.array([0, 1, 2, 0] + 30 * [1])
    probabilities = np.array(
        [[0.2, 0.7, 0.1], [0.04, 0.95, 0.01], [0.9, 0.06, 0.04], [0.8, 0.1, 0.1]]
        + 30 * [[0.5, 0.4, 0.1]]
    )
    draw_mistakes(np.arange(34), labels, probabilities, NAMES, "mine", "m.png")
    ((images, captions, title, path),) = drawn
    assert images.tolist() == [2, 0, *range(4, 27)] and len(captions) == 25
    assert captions[:3] == ["cat 90 %\nis: frog", "dog 70 %\nis: cat", "cat 50 %\nis: dog"]
    assert title == "The surest mistakes of mine" and path == "m.png"


def test_each_image_is_below_its_caption(figures):
    images = [np.full((8, 8, 3), shade, np.uint8) for shade in (10, 200)]
    draw_images(images, ["dark", "light"], "title", "i.png")
    shown = [axes for axes in figures[0].axes if axes.images]
    assert [axes.get_title() for axes in shown] == ["dark", "light"]
    assert [axes.images[0].get_array().max() for axes in shown] == [10, 200]
    assert figures[0].get_suptitle() == "title"
    assert not any(axes.axison for axes in figures[0].axes)


def test_doubtful_labels_come_first_by_how_much_likelier_another_class_is(figures):
    probabilities = np.array([[0.6, 0.4, 0.0], [0.33, 0.33, 0.34], [0.35, 0.05, 0.6]])
    images = np.zeros((3, 8, 8, 3), np.uint8)
    draw_doubtful_labels(images, np.array([0, 2, 0]), probabilities, NAMES, "mine", "d.png")
    captions = [axes.get_title() for axes in figures[0].axes if axes.images]
    assert captions == [
        "image 2: cat?\nfrog 60 %", "image 1: frog?\nfrog 34 %", "image 0: cat?\ncat 60 %"
    ]  # fmt: skip
    assert figures[0].get_suptitle() == "The most doubtful labels, says mine"


def right_with_6_of_10_and_sure_of_90_percent():
    return calibration(np.tile([0.9, 0.1], (10, 1)), np.array(6 * [0] + 4 * [1]))


def test_how_sure_and_how_right_it_is_is_drawn_in_percent(figures):
    draw_reliability({"mine": right_with_6_of_10_and_sure_of_90_percent()}, "title", "r.png")
    upper, lower = figures[0].axes
    diagonal, curve = upper.lines
    assert diagonal.get_xydata().tolist() == [[0, 0], [100, 100]]
    points = curve.get_xydata()
    assert points[~np.isnan(points).any(axis=1)].tolist() == [[pytest.approx(90), 60]]
    (bars,) = lower.patches
    shares, edges, _ = bars.get_data()
    assert shares.sum() == pytest.approx(100) and (edges[0], edges[-1]) == (0, 100)
    assert edges[shares.argmax()] <= 90 < edges[shares.argmax() + 1]
    assert upper.get_title() == "title"


def test_error_of_the_calibration_is_in_the_picture(figures):
    draw_reliability({"mine": right_with_6_of_10_and_sure_of_90_percent()}, "title", "r.png")
    upper, lower = figures[0].axes
    axes = upper.get_ylabel(), lower.get_ylabel(), lower.get_xlabel()
    assert axes == ("is right (%)", "images (%)", "is sure: the largest probability (%)")
    texts = [text.get_text() for text in upper.get_legend().get_texts()]
    assert texts == ["as sure as it is right", "mine: off by 30.0 points on average"]


def test_pictures_are_drawn(tmp_path):
    random = np.random.default_rng(0)
    probabilities, labels = random.dirichlet([1] * 3, 60), np.arange(60) % 3
    images = random.integers(0, 256, (60, 16, 16, 3), np.uint8)
    images[:] = (7, 200, 3)
    draw_confusion(labels, probabilities.argmax(axis=1), NAMES, "title", tmp_path / "c.png")
    draw_mistakes(images, labels, probabilities, NAMES, "title", tmp_path / "m.png")
    draw_reliability({"a": calibration(probabilities, labels)}, "title", tmp_path / "r.png")
    assert (7, 200, 3) in colours(tmp_path / "m.png")
    assert len(colours(tmp_path / "c.png")) > 50
    assert (0x1F, 0x77, 0xB4) in colours(tmp_path / "r.png")


def test_only_mistakes_are_shown_the_surest_first(tmp_path):
    images = np.zeros((3, 8, 8, 3), np.uint8)
    images[0], images[1], images[2] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
    draw_mistakes(images, np.array([0, 1, 0]), probabilities, NAMES[:2], "t", tmp_path / "m.png")
    shown = colours(tmp_path / "m.png")
    assert (250, 0, 0) not in shown and {(0, 250, 0), (0, 0, 250)} <= shown


def test_many_classes_are_drawn_without_numbers(tmp_path):
    labels = np.arange(60) % 30
    names = [f"class {number}" for number in range(30)]
    draw_confusion(labels, labels, names, "title", tmp_path / "c.png")
    assert (tmp_path / "c.png").exists()
