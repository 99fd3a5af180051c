"""Colours, fonts and empty figures that all plots share.

Colours can be distinguished without red and green; a scale also varies in lightness, so it survives greyscale printing.
Figure 3's scale of ranks alone does not: above its blue, essential tokens are yellow and red, as the paper's are orange
and red, and the red is darker than the yellow.
"""

import sys
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import Colormap, to_rgb
from matplotlib.figure import Figure

# Of seaborn's palette "colorblind". Seaborn itself is imported where something is drawn: it brings scipy along, and
# takes more than a second.
BLUE, ORANGE, GREEN, PURPLE = map(to_rgb, ("#0173b2", "#de8f05", "#029e73", "#cc78bc"))
GREY = "0.55"
RATIOS = ("#08306b", "#2171b5", "#4a9bd1")  # hard mask ratios, from the densest to the sparsest view
# The paper's values are diamonds, over the dots of ours and hollow, so that these show through.
PAPERS: dict[str, Any] = {
    "color": "black",
    "marker": "D",
    "markersize": 6,
    "markerfacecolor": "none",
    "markeredgewidth": 1.2,
    "linestyle": "none",
    "zorder": 5,
}
# Points of the smallest text in a figure, and inches of the widest figure: what the text column of a notebook in
# JupyterLab holds on a screen 1,366 pixels wide, so that no figure is shrunk, nor its text with it.
SMALLEST, WIDEST = 9, 8.8
SCREEN_DPI = 96  # CSS pixels per inch: a point of a figure is then a point of the page


def use_style() -> None:
    """Set fonts and colours, and let notebooks store two pixels for each of the screen's; call once."""
    import seaborn as sns

    sns.set_theme(context="paper", style="ticks", palette="colorblind", font_scale=1.05)
    plt.rcParams.update({"figure.dpi": SCREEN_DPI, "axes.spines.top": False, "axes.spines.right": False})
    if "IPython" in sys.modules and sys.modules["IPython"].get_ipython() is not None:
        from matplotlib_inline.backend_inline import set_matplotlib_formats

        set_matplotlib_formats("retina")


def seaborn_colours(name: str) -> Colormap:
    """One of seaborn's maps of colours by its name."""
    import seaborn as sns

    return sns.color_palette(name, as_cmap=True)


def new_figure(rows: int, columns: int, width: float, height: float, **options) -> tuple[Figure, np.ndarray]:
    """A figure of ``width`` × ``height`` inches, at most ``WIDEST`` wide, and its axes ``(rows, columns)``."""
    size = (min(width, WIDEST), height)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained", **options)
    # Left open, a notebook would show it twice: as the cell's value and as pyplot's current figure.
    plt.close(figure)
    return figure, axes


def literal(text: str) -> str:
    """``text`` drawn literally: a class named ``$\\frac$`` is not a formula, and ``_x`` appears in the legend."""
    # Matplotlib leaves out of a legend what begins with an underscore; a space without width goes before it.
    return ("\u200b" if text.startswith("_") else "") + text.replace("$", r"\$")


def literal_labels(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """A copy whose ``columns`` of names are drawn literally."""
    return table.assign(**{column: table[column].map(literal) for column in columns})
