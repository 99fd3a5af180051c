"""Figures of the study of A: scores under each normalisation of Eq. 11, and the tokens during training."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adatosk.experiments import activation_map, statistics
from adatosk.experiments.grid import AGNOSTIC, AS_PUBLISHED, NO_MASK, changed_row, split_row
from adatosk.plots.style import GREY, new_figure
from adatosk.plots.tables import OPEN, SIDES, draw_dot, span

# Line and marker of each normalisation, so that none is told apart by colour alone. The second marker is hollow and
# larger, so that the third's shows within it where both have the same place.
_CONSTANT, _MEAN = activation_map.CANDIDATES
_LINES: dict[str, dict[str, Any]] = {
    AS_PUBLISHED: {"linestyle": "-", "marker": "o", "markersize": 4},
    _CONSTANT: {"linestyle": "--", "marker": "s", "markersize": 8, "markerfacecolor": "none"},
    _MEAN: {"linestyle": ":", "marker": "^", "markersize": 4},
}


def normalisations(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """WAR with one view by mask and by what is changed about A; blue or orange where it changes the mask's score.

    Args:
        tables: scores of :func:`adatosk.experiments.activation_map.rows` by kind of motion, a column of panels each.
            Rows are those of the first; where another lacks one, its place stays empty.
    """
    first = next(iter(tables.values()))
    named = {row: split_row(row) for row in first["row"].unique()}
    references = (NO_MASK, AGNOSTIC)
    changed = {mask for mask, change in named.values() if change not in ("", AS_PUBLISHED)}
    masks = [mask for mask in dict.fromkeys(mask for mask, _ in named.values()) if mask in changed]
    counts = [sum(one == mask for one, _ in named.values()) for mask in masks]
    figure, axes = new_figure(
        len(masks), len(tables), 4.6 * len(tables) + 1.6, 1.2 + 0.31 * sum(counts),
        sharex="col", sharey="row", height_ratios=counts,
    )  # fmt: skip
    for column, (motion, table) in zip(axes.T, tables.items(), strict=True):
        one_view = table[table["protocol"] == statistics.PROTOCOL].set_index("row")["war"]
        for ax, mask in zip(column, masks, strict=True):
            mine = [row for row, (one, _) in named.items() if one == mask]
            published = changed_row(mask, AS_PUBLISHED)
            for place, row in enumerate(mine):
                if row not in one_view.index:
                    continue
                wars, colour = one_view.loc[[row]], OPEN
                if published in one_view.index:
                    colour = SIDES[statistics.side(statistics.interval(statistics.paired(table, row, published)))]
                draw_dot(ax, place, wars, statistics.score_interval(wars), "black" if row == published else colour)
            for name, style in zip(references, (":", "--"), strict=True):
                ax.axvline(one_view.loc[[name]].mean(), color=GREY, linestyle=style, zorder=0)
            if not one_view.index.intersection(mine).size:
                ax.text(0.5, 0.5, "not run", transform=ax.transAxes, ha="center", va="center", color="0.35")
            ax.set(yticks=range(len(mine)), yticklabels=[named[row][1] for row in mine], ylim=(len(mine) - 0.5, -0.5))
            ax.set_title(f"{mask}, {motion}" if len(tables) > 1 else mask, loc="left")
        span(*column)
        means = [one_view.loc[[name]].mean() for name in references]
        low, high = column[0].get_xlim()
        pad = 0.02 * (high - low)
        column[0].set_xlim(min(low, *(mean - pad for mean in means)), max(high, *(mean + pad for mean in means)))
        column[-1].set_xlabel("WAR, 1 view (%)")
        for mean, text, align in zip(means, ("no soft mask", "CA alone"), ("right", "left"), strict=True):
            column[0].annotate(
                text, (mean, 1.0), (0, 16), xycoords=("data", "axes fraction"), textcoords="offset points",
                ha=align, color="0.35", fontsize=9,
            )  # fmt: skip
    return figure


def tokens_in_training(observed: pd.DataFrame) -> Figure:
    """A, its spread over a clip, and the share of the gradient at its two extreme tokens, epoch by epoch.

    Args:
        observed: from :func:`adatosk.experiments.activation_map.observe_training`.
    """
    panels = {
        "activation": "A, mean over a clip",
        "spread": "A, std / mean over a clip",
        "extremes": "gradient at the two extremes (%)",
    }
    figure, axes = new_figure(1, len(panels), 10.4, 3.0)
    for ax, (column, title) in zip(axes[0], panels.items(), strict=True):
        scale = 100 if column == "extremes" else 1
        for change, part in observed.groupby("change", sort=False):
            ax.plot(part["epoch"], scale * part[column], label=change, **_LINES[change])
        ax.set(xlabel="epoch", title=title, ylim=(0, 1.08 * scale * observed[column].max()))
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes[0, 2].axhline(100 * observed["even"].iloc[0], color=GREY, linestyle="-.", label="evenly spread")
    axes[0, 2].legend(frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure
