"""Pictures."""

import logging
import os
import sys
import textwrap
import warnings
from pathlib import Path

from machinery.environment import ROOT
from machinery.errors import printable
from machinery.files import replace_when_complete

import matplotlib
import matplotlib.pyplot as plt
from matplotlib import font_manager
from matplotlib.text import Text

FONT = "DejaVu Sans"  # comes with Matplotlib, as does one with a box for each character there is
LAST_RESORT = "Last Resort"
MOST_NAME_BYTES = 200  # of a picture: file systems take 255, the temporary file needs some more
POINTS_PER_INCH = 72
WIDTH = 0.6  # of a character on average, as a part of the font size
# A file called matplotlibrc in the user's folder has been read in place of ours.
matplotlib.rc_file(os.environ["MATPLOTLIBRC"])
# Who wants Chinese characters does not care that their font has no normal weight.
logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)


def save_figure(figure, path):
    """Write a Matplotlib figure to a PNG file and close it.

    Names of folders may be in any script: what Matplotlib's own font lacks is drawn in those that
    are installed. Texts with `wrap=True` are wrapped here: where Matplotlib does it, it takes two
    dollar signs for mathematics, whatever its settings say.
    """
    texts = figure.findobj(Text)
    for text in texts:
        # Of a file's name that is no UTF-8, Python keeps what no font can draw.
        text.set_text(text.get_text().encode(errors="replace").decode())
        if text.get_wrap():
            characters = figure.get_figwidth() * POINTS_PER_INCH / (text.get_fontsize() * WIDTH)
            lines = [textwrap.fill(line, int(characters)) for line in text.get_text().split("\n")]
            text.set(text="\n".join(lines), wrap=False)
    more, lacking = fonts_for("".join(text.get_text() for text in texts))
    for text in texts if more else []:
        text.set_fontfamily([FONT, *more])
    if lacking:
        print(f"No font is installed for {lacking}: boxes stand for it in {path}", file=sys.stderr)
    with replace_when_complete(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(temporary, dpi=100)
    plt.close(figure)


def picture_of(photo, purpose, folder, taken=()):
    """Return the PNG for a picture of a photo: those in other folders, or formats, have their own.

    Args:
        photo: its path. purpose: what the picture's name begins with. folder: where it will be.
        taken: paths that belong to other photos, of the same name in other folders for example.
    """
    photo = Path(photo)
    name = photo.name if photo.parent in (Path(), ROOT) else f"{photo.parent.name}_{photo.name}"
    stem = f"{purpose}_{printable(name).replace('.', '_')}"
    stem = stem.encode()[:MOST_NAME_BYTES].decode(errors="ignore")
    path, number = Path(folder) / f"{stem}.png", 1
    while path in taken:
        number += 1
        path = Path(folder) / f"{stem}_{number}.png"
    return path


def fonts_for(text):
    """Return the names of fonts, beside Matplotlib's own, that a text needs, and what all lack.

    Args:
        text: what is to be drawn.

    Returns:
        `(names, lacking)`: a list of texts, and a text of the characters that no font has.
    """
    lacking = {character for character in text if character.isprintable()}
    needed = []
    installed = [name for name in font_manager.get_font_names() if LAST_RESORT not in name]
    for name in [FONT, *sorted(installed)]:
        font = font_manager.get_font(font_manager.findfont(name))
        has = {character for character in lacking if font.get_char_index(ord(character))}
        lacking -= has
        if has and name != FONT:
            needed.append(name)
        if not lacking:
            break
    return needed, "".join(sorted(lacking))
