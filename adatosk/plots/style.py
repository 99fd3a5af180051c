"""Colours, fonts and empty figures that all plots share.

Colours tell apart without red and green; a value's colour also gets lighter, so it survives grey print.
"""

import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.colors import Colormap, to_rgb
from matplotlib.figure import Figure

# Seaborn's palette "colorblind". Seaborn itself takes more than a second to import, for it brings scipy.stats along:
# the functions that draw with it import it.
_PALETTE = [
    *map(to_rgb, ("#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc")),
    *map(to_rgb, ("#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9")),
]
BLUE, ORANGE, GREEN, _, PURPLE = _PALETTE[:5]
GREY = "0.55"

# Seaborn's context "paper" with its font a twentieth larger, in points, and its style "ticks".
_TEXT, _SMALL = 12 * 0.8 * 1.05, 11 * 0.8 * 1.05
_STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": ".15",
    "axes.labelcolor": ".15",
    "axes.labelsize": _TEXT,
    "axes.linewidth": 1.0,
    "axes.prop_cycle": cycler(color=_PALETTE),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": _TEXT,
    "figure.dpi": 80,
    "font.family": ["sans-serif"],
    "font.sans-serif": ["Arial", "DejaVu Sans", "Liberation Sans", "Bitstream Vera Sans", "sans-serif"],
    "font.size": _TEXT,
    "grid.color": ".8",
    "legend.fontsize": _SMALL,
    "legend.title_fontsize": _TEXT,
    "lines.linewidth": 1.5 * 0.8,
    "lines.markersize": 6 * 0.8,
    "lines.solid_capstyle": "round",
    "patch.edgecolor": "w",
    "patch.force_edgecolor": True,
    "patch.linewidth": 0.8,
    "text.color": ".15",
    **{f"{axis}.color": ".15" for axis in ("xtick", "ytick")},
    **{f"{axis}.labelsize": _SMALL for axis in ("xtick", "ytick")},
    **{f"{axis}.major.size": 6 * 0.8 for axis in ("xtick", "ytick")},
    **{f"{axis}.major.width": 1.0 for axis in ("xtick", "ytick")},
    **{f"{axis}.minor.size": 3.2 for axis in ("xtick", "ytick")},
    **{f"{axis}.minor.width": 0.8 for axis in ("xtick", "ytick")},
}


def use_style() -> None:
    """Set fonts, colours and the resolution of figures in notebooks; call once."""
    plt.rcParams.update(_STYLE)


def seaborn_colours(name: str) -> Colormap:
    """One of seaborn's colour maps."""
    import seaborn as sns

    return sns.color_palette(name, as_cmap=True)


def new_figure(rows: int, columns: int, width: float, height: float, **options) -> tuple[Figure, np.ndarray]:
    """A figure of ``width`` × ``height`` inches and its axes ``(rows, columns)``."""
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **options)
    # Left open, a notebook would show it twice: as the cell's value and as pyplot's current figure.
    plt.close(figure)
    return figure, axes
