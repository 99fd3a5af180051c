"""Figures of the paper's tables over repeats; as in :mod:`adatosk.plots`, each function returns a closed figure.

Means are dots with their 95 % interval, single repeats are small dots. The axes span the repeats: an interval of three
repeats may be so wide that it runs out of the picture.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle

from adatosk.experiments import statistics
from adatosk.plots.style import BLUE, GREY, ORANGE, PAPERS, PURPLE, SMALLEST, new_figure

# Colour of a difference by where its interval lies.
ABOVE, BELOW, OPEN, TOO_FEW = BLUE, ORANGE, GREY, "0.8"
SIDES = {"above": ABOVE, "below": BELOW, "undecided": OPEN, "too few runs": TOO_FEW}
VERDICTS = {"reproduced": ABOVE, "not reproduced": BELOW, "undecided": OPEN, "too few runs": TOO_FEW}
HEAT = plt.get_cmap("YlGnBu")
# What the side of a row's interval means, beside the row it is compared with.
_COMPARED = {"above": "better", "below": "worse", "undecided": "undecided", "too few runs": "too few runs"}


def rows_and_differences(table: pd.DataFrame, reference: str, reported: pd.Series | None = None) -> Figure:
    """A table's rows: WAR on the left, points above the row ``reference`` on the right, beside the paper's.

    Args:
        table: from :func:`adatosk.experiments.tables.scores`; WAR with one view is drawn.
        reference: the row that the others are compared with.
        reported: the paper's WAR by row; its differences are diamonds.
    """
    rows = list(table["row"].unique())
    one_view = table[table["protocol"] == statistics.PROTOCOL]
    figure, axes = new_figure(1, 2, 8.6, 0.9 + 0.34 * len(rows), sharey=True)
    left, right = axes[0]
    sides = set()
    for place, row in enumerate(rows):
        colour: object = PURPLE
        if row != reference:
            side = _difference(right, place, statistics.paired(table, row, reference))
            colour = SIDES[side]  # on the left, too: a colour has one meaning
            sides.add(side)
        wars = one_view["war"][one_view["row"] == row]
        draw_dot(left, place, wars, statistics.score_interval(wars), colour)
    left.axvline(one_view["war"][one_view["row"] == reference].mean(), color=PURPLE, linestyle=":", zorder=0)
    right.axvline(0, color=PURPLE, linestyle=":", zorder=0)
    span(left)
    marks: list[Any] = []
    if reported is not None:
        there = reported.drop(index=reference).reindex(rows).dropna() - reported[reference]
        places = [rows.index(row) for row in there.index]
        marks += right.plot(there, places, label="the paper's, on DFEW", **PAPERS)
    span(right, around=0)
    left.set(xlabel="WAR, 1 view (%)", yticks=range(len(rows)), yticklabels=rows, ylim=(len(rows) - 0.5, -0.5))
    right.set_xlabel(f"points of WAR above {reference}")
    _explain(figure, {name: SIDES[side] for side, name in _COMPARED.items() if side in sides}, *marks)
    return figure


def gain_by_look(table: pd.DataFrame, better: str, worse: str, first: int | None, protocols: Sequence[str]) -> Figure:
    """Points of WAR by which ``better`` exceeds ``worse``: a dot per seed, and the interval of each set of seeds.

    Args:
        table, first: see :func:`adatosk.experiments.statistics.looks`.
        protocols: one panel each.
    """
    parts = {
        protocol: statistics.by_look(statistics.paired(table, better, worse, protocol=protocol), first)
        for protocol in protocols
    }
    choices = next(iter(parts.values()))
    width, height = 3.6 * len(protocols), 1.2 + 0.4 * len(choices)
    figure, axes = new_figure(1, len(protocols), width, height, sharex=True, sharey=True)
    for ax, (protocol, found) in zip(axes[0], parts.items(), strict=True):
        for place, part in enumerate(found.values()):
            _difference(ax, place, part)
        ax.axvline(0, color=PURPLE, linestyle=":", zorder=0)
        ax.set(title=_views(protocol), xlabel="gain in WAR (points)", yticks=range(len(choices)))
    span(*axes[0], around=0)
    said = {"all": "all {} seeds", "later": "the later {}"}
    axes[0, 0].set_yticklabels(said.get(name, f"the {name}").format(len(part)) for name, part in choices.items())
    axes[0, 0].set_ylim(len(choices) - 0.5, -0.5)
    return figure


def _views(protocol: str) -> str:
    """The name of a test protocol as it is read: ``views_8`` is 8 views."""
    views = protocol.removeprefix("views_")
    return f"{views} view{'s' * (views != '1')}" if views != protocol else protocol.replace("_", " ")


def _difference(ax: Axes, place: float, values: pd.Series) -> statistics.Side:
    """Draw differences in one line of a plot, coloured by the side of 0 on which their interval lies; returns it."""
    found = statistics.interval(values)
    side = statistics.side(found)
    draw_dot(ax, place, values, found, SIDES[side])
    return side


def draw_dot(ax: Axes, place: float, values: pd.Series, found: statistics.Interval, colour: object) -> None:
    """Single repeats, mean and interval in one line of a plot."""
    ax.hlines(place, found.low, found.high, color=colour, linewidth=1.6, alpha=0.5)
    single = {"color": colour, "alpha": 0.6, "markersize": 4.5, "markeredgecolor": "white", "markeredgewidth": 0.6}
    ax.plot(values, np.full(len(values), place), "o", zorder=3, **single)
    ax.plot(found.mean, place, "o", color=colour, markersize=6.5)


def span(*axes: Axes, around: float | None = None) -> None:
    """Limits that hold all dots of axes, and the value ``around`` which they lie; intervals do not count."""
    dots = [line for ax in axes for line in ax.lines if line.get_linestyle() == "None"]
    values = np.concatenate([line.get_xdata() for line in dots])
    low, high = np.nanmin(values), np.nanmax(values)
    if around is not None:
        low, high = min(low, around), max(high, around)
    pad = 0.12 * (high - low) + 0.2
    for ax in axes:
        ax.set_xlim(low - pad, high + pad)


def comparisons(found: pd.DataFrame, margin: float = statistics.NEGLIGIBLE) -> Figure:
    """The comparisons behind verdicts, under their claims; an improvement has to lie right of 0, a tie inside the band.

    Args:
        found: rows of :func:`adatosk.experiments.verdicts.comparisons` of the kinds ``better`` and ``negligible``.
        margin: half of the band's width in points.
    """
    found = found[found["kind"].isin(["better", "negligible"])].reset_index(drop=True)
    begins = found["id"] != found["id"].shift()
    places = found.index + begins.cumsum()  # a line above each claim's first for its name
    figure, ((ax,),) = new_figure(1, 1, 7.6, 0.9 + 0.24 * (places.max() + 1))
    for place, (_, one) in zip(places, found.iterrows(), strict=True):
        if one["kind"] == "negligible":
            ax.add_patch(Rectangle((-margin, place - 0.5), 2 * margin, 1, color="0.92", linewidth=0, zorder=0))
        if one["repeats"]:
            colour = VERDICTS[one["verdict"]]
            ax.hlines(place, one["low"], one["high"], color=colour, linewidth=1.6)
            ax.plot(one["ours"], place, "o", color=colour, markersize=6.5)
        else:
            ax.annotate("impossible with these sizes", (0, place), (6, 0), textcoords="offset points", va="center")
    ax.axvline(0, color="black", linewidth=0.8, zorder=0.5)
    reach = np.nanmax(np.abs([*found["ours"].fillna(0), margin, *_near(found)]))
    ax.set(xlim=(-1.15 * reach, 1.15 * reach), ylim=(places.max() + 0.5, -0.5))
    ax.set_xlabel("points of WAR by which the first exceeds the second")
    claims = found["id"][begins]
    ax.set_yticks([*places, *(places[begins] - 1)], [*found["what"], *claims], fontsize=SMALLEST)
    for label in ax.get_yticklabels()[len(found) :]:
        label.set_fontweight("bold")
    ax.tick_params(axis="y", length=0)
    band = Rectangle((0, 0), 1, 1, color="0.92", label=f"negligible: within ±{margin:g}")
    _explain(figure, _told(found), *([band] if "negligible" in set(found["kind"]) else []))
    return figure


def _near(found: pd.DataFrame) -> list[float]:
    """Bounds of intervals that are not far beyond the means, so that they fit in the picture."""
    limit = 4 * max(found["ours"].abs().max(), 1.0)
    return [bound for bound in (*found["low"], *found["high"]) if abs(bound) <= limit]


def _told(found: pd.DataFrame) -> dict[str, object]:
    """Colours by verdict, without that of too few runs where none is."""
    return {name: colour for name, colour in VERDICTS.items() if colour != TOO_FEW or name in set(found["verdict"])}


def _explain(figure: Figure, colours: Mapping[str, object], *others: Artist) -> None:
    """What the colours of dots mean, and other marks that have a label, above all panels."""
    dots = [Line2D([], [], color=colour, marker="o", label=name) for name, colour in colours.items()]
    figure.legend(handles=[*dots, *others], frameon=False, loc="outside upper center", ncols=len(dots) + len(others))


def ratio_by_exclusion(cells: pd.DataFrame) -> Figure:
    """Table 2 as two maps, ours and the paper's: WAR by colour and number, operations beneath; empty cells hatched.

    Args:
        cells: from :func:`adatosk.experiments.tables.ratio_and_exclusion`.
    """
    figure, axes = new_figure(1, 2, 9.4, 3.1, sharey=True)
    panels = (
        ("ours, the profile's model", "war", "gmacs"),
        ("the paper, on DFEW", "paper_war", "paper_gflops"),
    )
    for ax, (title, war, cost) in zip(axes[0], panels, strict=True):
        known = cells[war].dropna()
        scale = Normalize(known.min() - 0.1, known.max() + 0.1)
        for cell in cells.itertuples():
            giga = getattr(cell, cost)
            operations = f"{giga:.1f} G" if giga >= 1 else f"{1000 * giga:.1f} M"
            lines = [*(_mean(cell) if war == "war" else [str(cell.paper_war)]), operations]
            _cell(ax, cell, getattr(cell, war), "\n".join(lines), scale)
        rs, ratios = sorted(cells["r"].unique()), sorted(cells["mask_ratio"].unique())
        ax.set(xlim=(-0.5, len(rs) - 0.5), ylim=(len(ratios) - 0.5, -0.5), xlabel="excluded tokens per frame $r$")
        ax.set_xticks(range(len(rs)), rs)
        ax.set_yticks(range(len(ratios)), [f"{ratio:.0%}" for ratio in ratios])
        ax.set_title(title, loc="left")
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        figure.colorbar(ScalarMappable(scale, HEAT), ax=ax, label="WAR (%)", pad=0.02)
    axes[0, 0].set_ylabel("hidden")
    return figure


def _mean(cell: Any) -> list[str]:
    """Mean and reach of its interval, or, without one, the number of repeats."""
    found = statistics.Interval(cell.war, cell.low, cell.high, cell.repeats)
    return [f"{found.mean:.1f}", f"n = {found.count}" if np.isnan(found.half) else f"±{found.half:.1f}"]


def _cell(ax: Axes, cell: Any, war: float, text: str, scale: Normalize) -> None:
    column, row = cell.r // 2, {0.25: 0, 0.5: 1, 0.7: 2}[cell.mask_ratio]
    box = {"xy": (column - 0.48, row - 0.48), "width": 0.96, "height": 0.96}
    if np.isnan(war):
        ax.add_patch(Rectangle(**box, facecolor="white", edgecolor="0.7", hatch="////", linewidth=0))
        return
    colour = HEAT(scale(war))
    ax.add_patch(Rectangle(**box, facecolor=colour, linewidth=0))
    ink = "white" if np.dot(colour[:3], (0.3, 0.59, 0.11)) < 0.55 else "black"
    ax.text(column, row, text, ha="center", va="center", color=ink, fontsize=SMALLEST, linespacing=1.3)


def ambiguities(differences: pd.DataFrame) -> Figure:
    """Each alternative interpretation compared with its reference: points of WAR, one panel per protocol.

    Args:
        differences: one row per alternative, protocol and repeat: ``ambiguity``, ``protocol`` and ``difference``, above
            0 if the alternative scores higher.
    """
    names, protocols = list(differences["ambiguity"].unique()), list(differences["protocol"].unique())
    figure, axes = new_figure(1, len(protocols), 3.4 + 2.9 * len(protocols), 0.9 + 0.36 * len(names), sharey=True)
    sides = set()
    for ax, protocol in zip(axes[0], protocols, strict=True):
        for place, name in enumerate(names):
            chosen = (differences["ambiguity"] == name) & (differences["protocol"] == protocol)
            values = differences["difference"][chosen]
            if len(values):
                sides.add(_difference(ax, place, values))
        ax.axvline(0, color="black", linewidth=0.8, zorder=0)
        span(ax, around=0)
        ax.set(title=_views(protocol), xlabel="points of WAR above it", yticks=range(len(names)))
    axes[0, 0].set_yticklabels(names)
    axes[0, 0].set_ylim(len(names) - 0.5, -0.5)
    colours = {"alternative better": ABOVE, "reference better": BELOW, "interval contains 0": OPEN}
    if "too few runs" in sides:
        colours["too few runs"] = TOO_FEW
    _explain(figure, colours)
    return figure


def protocols(table: pd.DataFrame, chosen: Sequence[str]) -> Figure:
    """WAR of the same weights under each test protocol; repeats as thin lines, each row's mean as a thick one.

    Args:
        table: from :func:`adatosk.experiments.tables.scores`.
        chosen: rows to draw.
    """
    names = list(table["protocol"].unique())
    figure, ((ax,),) = new_figure(1, 1, 5.8, 3.0)
    for row, colour in zip(chosen, (BLUE, ORANGE, PURPLE, GREY), strict=False):
        wide = table[table["row"] == row].pivot(index="repeat", columns="protocol", values="war")[names]
        ax.plot(names, wide.T, color=colour, alpha=0.3, linewidth=0.9)
        ax.plot(names, wide.mean(), "o-", color=colour, linewidth=2, label=row)
    ax.set_xticks(range(len(names)), [_views(name) for name in names])
    ax.set_ylabel("WAR (%)")
    ax.margins(x=0.1)
    ax.legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def claims_by_protocol(found: pd.DataFrame) -> Figure:
    """The same comparisons under several test protocols: mean difference in points, coloured by the verdict.

    Args:
        found: concatenated tables from :func:`adatosk.experiments.verdicts.comparisons`, with a column ``protocol``.
    """
    whats, names = list(found["what"].unique()), list(found["protocol"].unique())
    figure, ((ax,),) = new_figure(1, 1, 2.6 + 1.3 * len(names), 0.9 + 0.32 * len(whats))
    for one in found.itertuples():
        place = names.index(one.protocol), whats.index(one.what)
        box = Rectangle((place[0] - 0.47, place[1] - 0.45), 0.94, 0.9, color=VERDICTS[one.verdict], alpha=0.6)
        ax.add_patch(box)
        ax.text(*place, "–" if np.isnan(one.ours) else f"{one.ours:+z.1f}", ha="center", va="center")
    ax.set(xlim=(-0.5, len(names) - 0.5), ylim=(len(whats) - 0.5, -0.5))
    ax.set_xticks(range(len(names)), [_views(name) for name in names])
    ax.set_yticks(range(len(whats)), whats)
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    handles = [Rectangle((0, 0), 1, 1, color=colour, alpha=0.6, label=name) for name, colour in _told(found).items()]
    figure.legend(handles=handles, frameon=False, loc="outside upper center", ncols=len(handles))
    return figure


def costs(table: pd.DataFrame) -> Figure:
    """Counted options beside the value that the paper reports: one panel per quantity, bars ours, a line the paper's.

    Args:
        table: from :func:`adatosk.experiments.ambiguities.counted`.
    """
    parts = dict(list(table.groupby("quantity", sort=False)))
    lengths = [len(part) for part in parts.values()]
    heights = [max(lengths[place : place + 2]) for place in range(0, len(lengths), 2)]
    size = 0.4 + 0.24 * sum(heights) + 0.42 * len(heights)
    figure, axes = new_figure(len(heights), 2, 8.6, size, height_ratios=heights)
    for ax in axes.flat[len(parts) :]:
        ax.remove()
    for ax, (quantity, part) in zip(axes.flat, parts.items(), strict=False):
        places = np.arange(len(part))
        ax.barh(places, part["ours"], color=[PURPLE if default else BLUE for default in part["default"]], height=0.7)
        ax.vlines(part["paper"], places - 0.45, places + 0.45, color="black", linewidth=2.5)
        for place, ours in zip(places, part["ours"], strict=True):
            ax.text(0, place, f" {ours:.1f}", va="center_baseline", color="white", fontsize=SMALLEST)
        ax.set_yticks(places, part["option"], fontsize=SMALLEST)
        ax.invert_yaxis()
        ax.set_xlabel(quantity, fontsize=SMALLEST, loc="right")  # long ones would leave the figure
    handles = [Rectangle((0, 0), 1, 1, color=PURPLE, label="our interpretation"),
               Rectangle((0, 0), 1, 1, color=BLUE, label="others"),
               Line2D([], [], color="black", linewidth=2.5, label="the paper's number")]  # fmt: skip
    figure.legend(handles=handles, frameon=False, loc="outside upper center", ncols=3)
    return figure
