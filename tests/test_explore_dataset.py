from conftest import ROOT, call, colours

import pytest


@pytest.fixture(scope="module")
def explored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("explored")
    ended = call("experiments/explore_dataset.py", "--sample", "--out", "here", cwd=folder)
    assert ended.code == 0, ended.errors
    return folder, ended.output


def test_shapes_are_printed(explored):
    assert "Train: X=(1000, 32, 32, 3), y=(1000, 10), uint8" in explored[1]
    assert "Test:  X=(250, 32, 32, 3), y=(250, 10), uint8" in explored[1]


def test_photos_are_drawn(explored):
    assert len(colours(explored[0] / "here" / "explore_dataset.png")) > 1000


def test_first_experiment_is_suggested_on_the_same_images(explored):
    assert explored[1].endswith(f"Next:    python {ROOT}/experiments/baseline1.py --sample\n")
