"""Pictures."""

from machinery.records import replace_when_complete

import matplotlib.pyplot as plt


def save_figure(figure, path):
    """Write a Matplotlib figure to a PNG file and close it."""
    with replace_when_complete(path) as temporary:
        figure.savefig(temporary, dpi=100)
    plt.close(figure)
