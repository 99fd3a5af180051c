"""Colours, fonts and empty figures that all plots share.

Colours can be distinguished without red and green; a scale also varies in lightness, so it survives greyscale printing.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure

BLUE, ORANGE, GREEN, _, PURPLE = sns.color_palette("colorblind")[:5]
GREY = "0.55"


def use_style() -> None:
    """Set fonts, grid and the resolution of figures in notebooks; call once."""
    sns.set_theme(context="paper", style="ticks", palette="colorblind", font_scale=1.05)
    plt.rcParams.update({"figure.dpi": 80, "axes.spines.top": False, "axes.spines.right": False})


def new_figure(rows: int, columns: int, width: float, height: float, **options) -> tuple[Figure, np.ndarray]:
    """A figure of ``width`` × ``height`` inches and its axes ``(rows, columns)``."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **options)
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
