"""Figures of a run's results: learning curves, confusion matrices, recalls and one clip's probabilities."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adatosk.plots.style import BLUE, GREY, literal, new_figure


def learning_curves(logs: Mapping[str, pd.DataFrame], chance: float | None = None) -> Figure:
    """Losses and, where it was taken, WAR on the test split, epoch by epoch.

    Args:
        logs: ``Run.log`` by name.
        chance: WAR of guessing in percent, a line from which WAR's axis begins unless a run is below it.
    """
    panels = {
        "reconstruction_loss": "reconstruction loss (train)",
        "classification_loss": "classification loss (train)",
        "test_war_views_1": "WAR, 1 view (test, %)",
    }
    figure, axes = new_figure(1, 3, 9, 2.6)
    for ax, (column, label) in zip(axes[0], panels.items(), strict=True):
        for (name, log), style in zip(logs.items(), ("-", "--", ":", "-."), strict=False):
            there = log.dropna(subset=column)
            ax.plot(there["epoch"], there[column], style, marker="o", markersize=4, label=name)
        ax.set(xlabel="epoch", title=label)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    if len(logs) > 1:
        axes[0, 0].legend(frameon=False)
    if chance is not None:
        axes[0, 2].axhline(chance, color=GREY, linestyle=":")
        where = {"xycoords": ("axes fraction", "data"), "textcoords": "offset points", "ha": "right", "color": GREY}
        axes[0, 2].annotate("guessing", (1, chance), (0, 3), **where)
    return figure


def confusions(matrices: Mapping[str, Sequence[Sequence[int]]], classes: Sequence[str]) -> Figure:
    """Confusion matrices side by side, each row in percent of its class; counts ``(classes, classes)`` by title."""
    import seaborn as sns

    figure, axes = new_figure(1, len(matrices), 4.3 * len(matrices), 3.7)
    for ax, (title, counts) in zip(axes[0], matrices.items(), strict=True):
        counts = np.asarray(counts, dtype=float)
        shares = 100 * counts / counts.sum(axis=1, keepdims=True).clip(1)
        sns.heatmap(shares, ax=ax, cmap="Blues", vmin=0, vmax=100, annot=True, fmt=".0f", square=True, cbar=False)
        ax.set_xticklabels(map(literal, classes), rotation=45, ha="right")
        ax.set_yticklabels(map(literal, classes), rotation=0)
        ax.set(title=title, xlabel="predicted", ylabel="true")
    return figure


def recalls(table: pd.DataFrame) -> Figure:
    """Recall of each class in percent as bars: columns are classes, rows are models."""
    import seaborn as sns

    figure, ((ax,),) = new_figure(1, 1, 7.6, 2.6)
    shown = table.rename(index=literal, columns=literal).rename_axis("model")
    long = shown.reset_index().melt("model", var_name="class", value_name="recall")
    sns.barplot(long, x="class", y="recall", hue="model", ax=ax)
    ax.set(xlabel="", ylabel="recall (%)", ylim=(0, 100))
    sns.move_legend(ax, "lower center", bbox_to_anchor=(0.5, 1), ncols=len(table), title=None, frameon=False)
    return figure


def probabilities(values: Mapping[str, float]) -> Figure:
    """Class probabilities as bars, with chance as a line."""
    figure, ((ax,),) = new_figure(1, 1, 4.6, 0.5 + 0.24 * len(values))
    ax.barh(list(map(literal, values)), list(values.values()), color=BLUE)
    ax.axvline(1 / len(values), color=GREY, linestyle="--", label="chance")
    ax.invert_yaxis()
    ax.set(xlabel="probability", xlim=(0, 1))
    ax.legend(frameon=False)
    return figure
