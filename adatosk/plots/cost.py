"""Figures of measured and counted cost, from the tables of :mod:`adatosk.cost`."""

from collections.abc import Mapping

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from adatosk.plots.labels import name_ends
from adatosk.plots.style import BLUE, GREEN, GREY, ORANGE, PURPLE, RATIOS, SMALLEST, new_figure

# Parts of the model, each with a colour of its own, and the share of a model under which one is part of the rest.
_PARTS, _TINY = (BLUE, ORANGE, GREEN, PURPLE), 0.02
_SPANS = {"load": GREEN, "wait": ORANGE, "step": BLUE}
_MODELS = {"videomae": GREY, "adatosk without soft mask": ORANGE, "adatosk": BLUE}
_BESIDE = {"videomae through oneDNN": PURPLE, **_MODELS}
_SWEEPS = {"frames": "frames", "image_size": "pixels a side", "batch": "clips at once"}


def seconds_by_macs(table: pd.DataFrame) -> Figure:
    """Does a saved multiply-accumulate save a second? Counts against the clock, one point a model; r grows leftwards.

    Args:
        table: rows of :func:`adatosk.cost.models.table2_times`; the line is what they would take at the device's peak.
    """
    figure, ((ax,),) = new_figure(1, 1, 6.6, 3.8)
    masked = table[table["model"].str.contains(", r = ")]
    for (ratio, cells), colour in zip(masked.groupby("mask_ratio"), RATIOS, strict=False):
        ax.plot(cells["gmacs"], cells["seconds"], "o-", color=colour)
        _name_point(ax, cells.iloc[0], f"soft mask, {ratio:.0%} hidden", colour, (24, -16))
    # In the colours of notebook 12: the model without a soft mask, and all tokens.
    for row, marker in zip(table.drop(masked.index).itertuples(), "sD", strict=True):
        colour, offset = (ORANGE, (14, -32)) if row.mask_ratio else (GREEN, (-14, 10))
        ax.plot(row.gmacs, row.seconds, marker, color=colour)
        _name_point(ax, row, row.model, colour, offset)
    most, peak = 1.08 * table["gmacs"].max(), table["peak_gflops"].iloc[0]
    lines = {
        f"at the peak, {peak:.0f} GFLOP/s": (2 * most / peak, "-"),
        "at 80 % of it": (2 * most / (0.8 * peak), ":"),
    }
    for seconds, style in lines.values():
        ax.plot([0, most], [0, seconds], style, color=GREY)
    ax.set(xlabel="GMACs a clip", ylabel="seconds a clip", xlim=(0, most), ylim=(0, None))
    name_ends(ax, ((most, seconds, name, GREY) for name, (seconds, _) in lines.items()))
    return figure


def _name_point(ax: Axes, row, name: str, colour, offset: tuple[int, int]) -> None:
    """Write a point's name ``offset`` points away from it, with a thin line to it."""
    right = offset[0] > 0
    side = {"ha": "left", "va": "top"} if right else {"ha": "right", "va": "bottom"}
    corner = (0, 1) if right else (1, 0)  # of the text, where the line ends
    thin = {"arrowstyle": "-", "color": colour, "linewidth": 0.5, "alpha": 0.6, "shrinkA": 0, "relpos": corner}
    place = (row.gmacs, row.seconds)
    ax.annotate(name, place, offset, textcoords="offset points", color=colour, arrowprops=thin, **side)


def speed_ups(table: pd.DataFrame) -> Figure:
    """How many times as fast as VideoMAE each model is, a group of bars for each setup.

    Args:
        table: rows of :func:`adatosk.cost.models.benchmark`.
    """
    table = table[table["model"] != "videomae"]
    setups = list(table.groupby(["work", "batch", "precision", "compiled"], sort=False))
    names = [name for name in _BESIDE if name in set(table["model"])]
    figure, ((ax,),) = new_figure(1, 1, 7.6, 0.9 + 0.24 * len(names) * len(setups))
    for place, (_, rows) in enumerate(setups):
        for row in rows.itertuples():
            y = place + 0.26 * (names.index(row.model) - (len(names) - 1) / 2)
            ax.barh(y, row.speed_up, 0.24, color=_BESIDE[row.model], label=row.model if place == 0 else None)
            ax.annotate(f"{row.speed_up:.1f}×", (row.speed_up, y), (3, 0), textcoords="offset points", va="center")
    texts = [f"{work}, {batch} clip{'s' * (batch > 1)}, {precision}{', compiled' * compiled}"
             for (work, batch, precision, compiled), _ in setups]  # fmt: skip
    ax.set_yticks(range(len(texts)), texts)
    ax.set_ylim(len(texts) - 0.4, -0.6)
    ax.axvline(1, color=GREY, linestyle="--")
    ax.set_xlabel("times as fast as VideoMAE (dashed) in the same session")
    ax.margins(x=0.08)
    ax.legend(frameon=False, ncols=len(names), loc="lower center", bbox_to_anchor=(0.35, 1))
    return figure


def growth(table: pd.DataFrame) -> Figure:
    """Seconds a batch as frames, resolution and batch grow, both axes doubling; rows of ``growth``."""
    sweeps = [name for name in _SWEEPS if name in set(table["sweep"])]
    figure, axes = new_figure(1, len(sweeps), 2.9 * len(sweeps) + 1.7, 2.8, sharey=True)
    names = [name for name in _MODELS if name in set(table["model"])]
    for ax, sweep in zip(axes[0], sweeps, strict=True):
        rows = table[table["sweep"] == sweep]
        for name, marker in zip(names, "sov", strict=False):
            line = rows[rows["model"] == name]
            ax.plot(line[sweep], line["seconds"], f"{marker}-", color=_MODELS[name], label=name)
        ax.set(xscale="log", yscale="log", xlabel=_SWEEPS[sweep], xticks=sorted(rows[sweep].unique()))
        ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axis.set_minor_locator(NullLocator())
        ax.grid(axis="y", color="0.92")
    axes[0, 0].set_ylabel("seconds, forward pass")
    name_ends(ax, ((*line.get_xydata()[-1], line.get_label(), line.get_color()) for line in ax.lines))
    return figure


def step_parts(table: pd.DataFrame) -> Figure:
    """How long each part of a training step takes, a bar each.

    Args:
        table: from :func:`adatosk.cost.profiling.profile_step`.
    """
    figure, ((ax,),) = new_figure(1, 1, 6.2, 0.7 + 0.3 * len(table))
    colours = [BLUE if part == "soft mask" else GREY for part in table.index]
    bars = ax.barh(range(len(table)), table["milliseconds"], color=colours)
    ax.bar_label(bars, [f"{share:.1%}" for share in table["share"]], padding=3)
    ax.set_yticks(range(len(table)), table.index)
    ax.invert_yaxis()
    ax.set(
        xlabel=f"milliseconds of a training step of {table.attrs['batch']} clips",
        xlim=(0, 1.15 * table["milliseconds"].max()),
    )
    return figure


def loader_trace(table: pd.DataFrame) -> Figure:
    """Timeline with and without loader processes, from rows of :func:`adatosk.cost.loader.trace`."""
    counts = sorted(table["workers"].unique())
    lanes: Mapping[int, list[str]] = {
        count: ["training", *sorted(set(table["lane"][table["workers"] == count]) - {"training"})] for count in counts
    }
    heights = [len(names) for names in lanes.values()]
    figure, axes = new_figure(len(counts), 1, 7, 0.9 + 0.42 * sum(heights), sharex=True, height_ratios=heights)
    for ax, (count, names) in zip(axes[:, 0], lanes.items(), strict=True):
        for span in table[table["workers"] == count].itertuples():
            place, start = names.index(span.lane), max(span.start, 0)
            edge = {"edgecolor": "white", "linewidth": 0.4}
            ax.barh(place, span.end - start, left=start, height=0.7, color=_SPANS[span.what], **edge)
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        title = "in the training's own process" if count == 0 else f"{count} processes"
        ax.set_title(title, loc="left", fontsize=SMALLEST)
    axes[-1, 0].set(xlabel="seconds", xlim=(0, None))
    names = {"load": "loads a clip", "wait": "waits for a batch", "step": "training step"}
    handles = [Patch(color=colour, label=names[what]) for what, colour in _SPANS.items()]
    axes[0, 0].legend(handles=handles, frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 1))
    return figure


def macs_by_part(parts: pd.DataFrame) -> Figure:
    """Where the multiply-accumulates go: stacked bars in GMACs; rows are models, columns parts.

    Parts that take less than ``_TINY`` of every model are one, "rest". Names stand above the first bar.
    """
    small = (parts.div(parts.sum(axis=1), axis=0) < _TINY).all()
    parts = parts.loc[:, ~small].assign(rest=parts.loc[:, small].sum(axis=1))
    figure, ((ax,),) = new_figure(1, 1, 7, 1.1 + 0.42 * len(parts))
    start = 0 * parts["rest"]
    for (name, values), colour in zip(parts.items(), (*_PARTS[: len(parts.columns) - 1], GREY), strict=True):
        bars = ax.barh(range(len(parts)), values, 0.7, start, color=colour, edgecolor="white")
        middle = (bars[0].get_x() + bars[0].get_width() / 2, bars[0].get_y())
        ax.annotate(str(name), middle, (0, 3), textcoords="offset points", ha="center", color=colour)
        start = start + values
    for row, total in enumerate(start):
        ax.annotate(f"{total:.1f}", (total, row), (3, 0), textcoords="offset points", va="center")
    ax.set_yticks(range(len(parts)), parts.index)
    ax.invert_yaxis()
    ax.set(xlabel="GMACs of one forward pass")
    ax.margins(x=0.08)
    return figure


def table2_costs(costs: pd.DataFrame) -> Figure:
    """Table 2's cost against the number of excluded tokens, ours beside the paper's; from ``table2_cost``."""
    figure, axes = new_figure(1, 2, 7.6, 2.9, sharex=True)
    columns = {"gmacs": ("paper_gflops", "GMACs", 1), "saving": ("paper_saving", "saved against r = 0 (%)", 100)}
    for ax, (ours, (theirs, label, scale)) in zip(axes[0], columns.items(), strict=True):
        for (_, cells), colour in zip(costs.groupby("mask_ratio"), RATIOS, strict=True):
            ax.plot(cells["r"], scale * cells[ours], "o-", color=colour)
            ax.plot(cells["r"], scale * cells[theirs], "s:", color=colour)
        ax.set(xlabel="excluded tokens per frame $r$", ylabel=label, xticks=sorted(costs["r"].unique()))
    for (ratio, cells), colour in zip(costs[costs["feasible"]].groupby("mask_ratio"), RATIOS, strict=True):
        where = {"xytext": (7, 0), "textcoords": "offset points", "va": "center", "annotation_clip": False}
        last = cells.iloc[-1]
        axes[0, 0].annotate(f"{ratio:.0%} hidden", (last["r"], last["gmacs"]), color=colour, **where)
    looks = {"ours": "o-", "paper": "s:"}
    handles = [Line2D([], [], color="black", marker=look[0], ls=look[1:], label=name) for name, look in looks.items()]
    axes[0, 1].legend(handles=handles, frameon=False, loc="upper left")
    figure.get_layout_engine().set(wspace=0.06)
    return figure
