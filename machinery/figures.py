"""Pictures."""

from machinery.files import replace_when_complete

import matplotlib.pyplot as plt
from matplotlib import font_manager

# For names of folders in scripts that Matplotlib's own font does not have, as far as installed.
MORE_FONTS = (
    "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic",
)  # fmt: skip
installed = font_manager.get_font_names()
plt.rcParams["font.family"] = ["DejaVu Sans", *(font for font in MORE_FONTS if font in installed)]


def save_figure(figure, path):
    """Write a Matplotlib figure to a PNG file and close it."""
    with replace_when_complete(path) as temporary:
        figure.savefig(temporary, dpi=100)
    plt.close(figure)
