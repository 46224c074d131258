from machinery.errors import UsageError
from machinery.figures import fonts_for, picture_of, save_figure

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import font_manager
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
    with pytest.raises(UsageError, match="disk full"):
        save_figure(figure, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").read_text() == "earlier"
    assert len(list(tmp_path.iterdir())) == 1
    plt.close(figure)


@pytest.mark.parametrize("title", [r"costs $\frac{$ or less " * 9, "a\nb"])
def test_long_title_is_wrapped_whatever_is_in_it(tmp_path, title):
    figure = plt.figure(figsize=(4, 3))
    text = figure.suptitle(title, wrap=True)
    save_figure(figure, tmp_path / "figure.png")
    lines = text.get_text().split("\n")
    assert max(map(len, lines)) <= 40 and len(lines) == (2 if title == "a\nb" else 6)
    assert " ".join(lines).split() == title.split()


OF_STIX, OF_NONE = "\N{MATHEMATICAL ITALIC SMALL ALPHA}", "\N{EGYPTIAN HIEROGLYPH A001}"


def drawn(path, text):
    """The pixels of a picture of a text."""
    figure = plt.figure(figsize=(2, 1))
    figure.text(0.1, 0.1, text, fontsize=40)
    save_figure(figure, path)
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_name_that_is_no_utf_8_is_drawn_with_a_question_mark(tmp_path):
    assert (drawn(tmp_path / "odd.png", "\udcff") == drawn(tmp_path / "mark.png", "?")).all()


def test_character_that_another_font_has_is_drawn_in_that(tmp_path):
    """STIX comes with Matplotlib, too."""
    box = drawn(tmp_path / "box.png", OF_NONE)
    assert (drawn(tmp_path / "alpha.png", OF_STIX) != box).any()
    needed, lacking = fonts_for("aé$_" + OF_STIX)
    assert len(needed) == 1 and not lacking
    assert fonts_for("aé$_\n") == ([], "")


def test_character_that_no_font_has_is_told_in_one_line(tmp_path, capsys, recwarn, monkeypatch):
    monkeypatch.setattr(font_manager, "get_font_names", list)
    drawn(tmp_path / "x.png", f"a{OF_NONE}b")
    assert capsys.readouterr().err == (
        f"No font is installed for {OF_NONE}: boxes stand for it in {tmp_path / 'x.png'}\n"
    )
    assert not recwarn.list


def test_name_of_a_picture_is_not_too_long_for_a_file(tmp_path):
    figure = plt.figure()
    path = picture_of(f"{80 * '猫'}.png", "explain", tmp_path)
    save_figure(figure, path)
    assert path.exists() and path.name.startswith("explain_猫") and len(path.stem) > 50
    assert picture_of(f"{80 * '猫'}.jpg", "explain", tmp_path, {path}) != path
