"""The figures over repeats: accuracy against cost, the paper's differences beside ours, recalls with intervals.

As in :mod:`adatosk.plots`, each function returns a closed figure, to show or to save.
"""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from adatosk.experiments.cost_curve import ALL_PATCHES, MERGED, PARTITION, RANDOM
from adatosk.experiments.grid import WITH, WITHOUT
from adatosk.plots.labels import name_ends, place_labels
from adatosk.plots.scores import recalls
from adatosk.plots.style import BLUE, GREEN, GREY, ORANGE, PAPERS, PURPLE, RATIOS, SMALLEST, WIDEST, new_figure

_COLOURS = {WITH: BLUE, WITHOUT: ORANGE, MERGED: PURPLE, RANDOM: GREY}
# Of the rivals: what starts from pre-training is hollow and larger, so that it hides nothing at the same place.
_RIVALS: tuple[dict[str, Any], ...] = (
    {"marker": "D"},
    {"marker": "s"},
    {"marker": "v", "markersize": 9, "markerfacecolor": "none"},
    {"marker": "^", "markersize": 9, "markerfacecolor": "none"},
)
# One is hollow and larger, for the same reason.
_PARTITION_LOOK: dict[str, Any] = {"marker": "*", "markersize": 9}
_WHOLE_LOOK: dict[str, Any] = {"marker": "o", "markersize": 14, "markerfacecolor": "none", "markeredgewidth": 1.4}
_DIRECTIONS = {"same": BLUE, "opposite": ORANGE, "undecided": GREY, "too few runs": "0.8"}


def accuracy_against_cost(table: pd.DataFrame) -> Figure:
    """Mean WAR against GMACs a clip: above over views, below over hard mask ratio and r; the rivals in both.

    Every curve is named beside its last point, and settings stand at points, as far as there is room.

    Args:
        table: from :func:`adatosk.experiments.cost_curve.averaged`. Bars are its intervals, where there are any.
    """
    figure, axes = new_figure(2, 1, WIDEST, 6.8, sharex=True)
    upper, lower = axes[:, 0]
    curves = dict(list(table.groupby("curve", sort=False)))
    rivals = [name for name in curves if name not in _COLOURS and "hidden" not in name and name != "joint"]
    labels: dict[Axes, list[tuple[float, float, str, Any]]] = {upper: [], lower: []}
    for ax in (upper, lower):
        for name in (MERGED, RANDOM):
            _line(ax, name, curves[name], _COLOURS[name], linestyle="--")
        for name, look in zip(rivals, _RIVALS, strict=False):
            _line(ax, name, curves[name], GREEN, **look)
    for name in (WITHOUT, WITH):
        labels[upper] += _views(upper, name, curves[name], _COLOURS[name])
    for name, colour in zip([name for name in curves if "hidden" in name], RATIOS, strict=False):
        _line(lower, f"{WITH}, {name}", curves[name], colour)
        labels[lower] += _settings(curves[name], colour, ends=True)
    labels[lower] += _settings(curves[MERGED], _COLOURS[MERGED], ends=True) + _settings(
        curves[RANDOM], _COLOURS[RANDOM]
    )
    upper.legend(handles=_special_points(), frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 1))
    low, high = table["mean"].min(), table["mean"].max()
    for ax, title in ((upper, "views at test time"), (lower, "hard mask ratio and $r$, 1 view")):
        ax.set_title(title, loc="right")
        ax.set(ylabel="WAR (%)", ylim=(max(low - 0.1 * (high - low) - 1, -2), min(high + 0.1 * (high - low) + 1, 105)))
        _plain_log(ax)
        ax.margins(x=0.09)
        _name_curves(ax)
    lower.set_xlabel("GMACs of a clip")
    for ax, said in labels.items():
        place_labels(ax, said)
    return figure


def _special_points() -> list[Line2D]:
    """What the two points beside the curve over views are."""
    looks = {"complementary masks": _PARTITION_LOOK, "all patches at once": _WHOLE_LOOK}
    return [Line2D([], [], color="black", linestyle="none", label=name, **look) for name, look in looks.items()]


def _name_curves(ax: Axes) -> None:
    """Write each curve's name to the right of the axes, at the height of its last point or the next free one."""
    name_ends(ax, ((*line.get_xydata()[-1], name, line.get_color()) for line, name in _labelled(ax)))


def _labelled(ax: Axes) -> list[tuple[Line2D, str]]:
    """The curves that have a name, without the points beside one."""
    return [(bars[0], bars.get_label()) for bars in ax.containers if not bars.get_label().startswith("_")]


def _plain_log(ax: Axes) -> None:
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())


def _line(ax: Axes, name: str, points: pd.DataFrame, colour, marker: str = "o", linestyle: str = "-", **look) -> None:
    """One curve with its intervals."""
    points = points.sort_values("gmacs")
    look = {"color": colour, "markersize": 5, "elinewidth": 0.8, "marker": marker, "linestyle": linestyle} | look
    ax.errorbar(points["gmacs"], points["mean"], _reach(points), label=name, **look)


def _reach(points: pd.DataFrame) -> list[pd.Series]:
    """How far the intervals reach below and above the means; not at all where there is none."""
    return [(points["mean"] - points["low"]).fillna(0), (points["high"] - points["mean"]).fillna(0)]


def _settings(points: pd.DataFrame, colour, ends: bool = False) -> list[tuple[float, float, str, Any]]:
    """The settings of all of a curve's points as labels, or of its first and last."""
    points = points.sort_values("gmacs")
    if ends and len(points) > 1:
        points = points.iloc[[0, -1]]
    return [(point.gmacs, point.mean, point.setting, colour) for point in points.itertuples()]


def _views(ax: Axes, name: str, points: pd.DataFrame, colour) -> list[tuple[float, float, str, Any]]:
    """The curve over random views, and apart from it the partition and the view of all patches; returns its labels."""
    settings = points["setting"]
    special = settings.isin([PARTITION, ALL_PATCHES])
    random = points[~special].assign(setting=settings[~special].str.split(" ").str[0])
    _line(ax, f"{name}, by views", random, colour)
    for setting, look in ((PARTITION, _PARTITION_LOOK), (ALL_PATCHES, _WHOLE_LOOK)):
        there = points[settings == setting]
        ax.errorbar(there["gmacs"], there["mean"], _reach(there), fmt="none", color=colour, elinewidth=0.8)
        ax.plot(there["gmacs"], there["mean"], color=colour, linestyle="none", zorder=4, **look)
    return _settings(random, colour)


def differences(table: pd.DataFrame) -> Figure:
    """The paper's differences between the rows of its tables beside ours with their intervals, in points of one score.

    Args:
        table: rows of one score from :func:`adatosk.experiments.paper_vs_ours.differences`. Intervals may extend beyond
            the axes.
    """
    groups = {name: group.iloc[::-1] for name, group in table.groupby("table", sort=False)}
    heights = [len(group) + 0.8 for group in groups.values()]
    figure, axes = new_figure(len(groups), 1, 7.2, 0.9 + 0.26 * sum(heights), sharex=True, height_ratios=heights)
    for ax, (name, group) in zip(axes[:, 0], groups.items(), strict=True):
        rows, references = zip(*group["row"].str.split(" less "), strict=True)
        for place, row in enumerate(group.itertuples()):
            _beside(ax, place, row)
        ax.axvline(0, color="black", linewidth=0.8)
        ax.set_yticks(range(len(rows)), rows)
        ax.set_ylim(-0.6, len(rows) - 0.4)
        table_name = name.replace("table", "Table ")
        ax.set_title(f"{table_name}, points above '{references[0]}'", loc="left", fontsize=SMALLEST)
    reach = 1.5 * table[["paper", "ours"]].abs().max().max() + 1
    score = table["quantity"].iloc[0].removesuffix(", points")
    axes[-1, 0].set(xlabel=f"points of {score}", xlim=(-reach, reach))
    handles = [Line2D([], [], label="paper, DFEW", **PAPERS)]
    for name, colour in _DIRECTIONS.items():
        if name != "too few runs" or name in set(table["direction"]):
            label = f"ours, {name}" + (" direction" if name in ("same", "opposite") else "")
            handles.append(Line2D([], [], color=colour, marker="o", label=label))
    figure.legend(handles=handles, frameon=False, loc="outside lower center", ncols=len(handles))
    return figure


def _beside(ax: Axes, place: int, row) -> None:
    ax.plot(row.paper, place, **PAPERS)
    if row.direction in _DIRECTIONS:
        colour = _DIRECTIONS[row.direction]
        ax.plot(row.ours, place, "o", color=colour, markersize=5)
        ax.plot([row.low, row.high], [place, place], color=colour, linewidth=1.5)  # nothing where the bounds are NaN


def recalls_with_intervals(means: pd.DataFrame, reach: pd.DataFrame) -> Figure:
    """Mean recall of each class in percent, with bars of ``reach`` to both sides; columns are classes, rows models."""
    figure = recalls(means)
    (ax,) = figure.axes
    for bars, name in zip(list(ax.containers), means.index, strict=True):
        middles = [bar.get_x() + bar.get_width() / 2 for bar in bars]
        ax.errorbar(middles, means.loc[name], reach.loc[name].fillna(0), fmt="none", color="0.25", elinewidth=1)
    return figure
