"""The figure of a check: a data set's contents, and its problems."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from adatosk.manifests import Manifest
from adatosk.plots.style import BLUE, GREY, literal, new_figure
from adatosk.video.checks import Report

MOST_SIZES = 8


def check_report(report: Report, manifest: Manifest) -> Figure:
    """Four panels: clips of each class by split or fold, lengths, sizes of the frames, and problems by their kind.

    Args:
        report: the result of :meth:`adatosk.manifests.Manifest.check`.
        manifest: the manifest that was checked. Lengths and sizes are those of the clips without a problem.
    """
    figure, axes = new_figure(2, 2, 9, 6.2)
    figure.get_layout_engine().set(hspace=0.1)
    fine = report.table[report.table["problem"] == ""]
    _classes(axes[0, 0], manifest)
    _lengths(axes[0, 1], fine["frames"])
    _sizes(axes[1, 0], fine)
    _problems(axes[1, 1], report)
    return figure


def _classes(ax: Axes, manifest: Manifest) -> None:
    import seaborn as sns

    by = "fold" if manifest.folds else "split"
    labels = pd.Categorical(manifest.clips["label"].map(literal), list(map(literal, manifest.classes)))
    sns.histplot(
        manifest.clips.assign(label=labels),
        y="label",
        hue=manifest.clips[by].astype(str).rename("test fold" if by == "fold" else by),
        multiple="stack",
        shrink=0.8,
        alpha=1,
        ax=ax,
    )
    ax.set(xlabel="clips", ylabel="", title=f"clips by class, {len(manifest.clips):,} in all")
    sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), frameon=False)


def _lengths(ax: Axes, frames: pd.Series) -> None:
    import seaborn as sns

    ax.set_title("frames of a clip")
    if _nothing(ax, frames.empty, "no clip is fine"):
        return
    sns.histplot(frames.astype(int), bins=min(30, 1 + int(frames.max() - frames.min())), color=BLUE, ax=ax)
    ax.axvline(frames.median(), color="black", linestyle="--")
    ax.set(title=f"frames of a clip, median {frames.median():.0f}", xlabel="frames", ylabel="clips")
    ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))


def _sizes(ax: Axes, fine: pd.DataFrame) -> None:
    sizes = (fine["width"].astype(str) + " × " + fine["height"].astype(str)).value_counts()
    more = f", the {MOST_SIZES} most frequent of {len(sizes)}" if len(sizes) > MOST_SIZES else ""
    ax.set_title(f"width × height in pixels{more}")
    if not _nothing(ax, sizes.empty, "no clip is fine"):
        _bars(ax, sizes.head(MOST_SIZES), BLUE)


def _problems(ax: Axes, report: Report) -> None:
    ax.set_title(f"problems: {len(report.broken):,} of {len(report.table):,} clips")
    if not _nothing(ax, report.broken.empty, "none"):
        _bars(ax, report.kinds, to_rgb("0.35"))


def _bars(ax: Axes, counts: pd.Series, colour: tuple[float, float, float]) -> None:
    import seaborn as sns

    sns.barplot(x=counts.to_numpy(), y=counts.index.to_list(), color=colour, saturation=1, width=0.6, ax=ax)
    ax.bar_label(ax.containers[0], fmt="{:,.0f}", padding=2)
    ax.set(xlabel="clips", ylabel="", ylim=(max(len(counts), 3) - 0.4, -0.6))
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.margins(x=0.12)


def _nothing(ax: Axes, empty: bool, text: str) -> bool:
    """Write ``text`` in place of an ``empty`` panel's contents."""
    if empty:
        ax.axis("off")
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center", color=GREY)
    return empty
