from machinery.figures import save_figure

import matplotlib.pyplot as plt
import pytest
from PIL import Image


def test_figure_is_written_and_closed(tmp_path):
    figure = plt.figure(figsize=(3, 2))
    save_figure(figure, tmp_path / "figure.png")
    with Image.open(tmp_path / "figure.png") as picture:
        assert (picture.format, picture.size) == ("PNG", (300, 200))
    assert not plt.fignum_exists(figure.number)


def test_figure_that_fails_leaves_the_earlier_one(tmp_path, monkeypatch):
    (tmp_path / "figure.png").write_text("earlier")
    figure = plt.figure()

    def half(path, **options):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(figure, "savefig", half)
    with pytest.raises(OSError, match="disk full"):
        save_figure(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 1
    plt.close(figure)
