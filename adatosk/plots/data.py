"""Figures of the data: classes, sampled frames, the action units of a rendered clip."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from adatosk.plots.style import GREY, ORANGE, PURPLE, SMALLEST, literal, literal_labels, new_figure
from adatosk.synthetic import GroundTruth


def action_units(truth: GroundTruth, sampled: Sequence[int] = ()) -> Figure:
    """Ground truth of a rendered clip: action units of the expression and of the distractor, blinks and talking.

    Lines mark onset, apex and offset; triangles the frames that are ``sampled``.
    """
    figure, axes = new_figure(3, 1, 7, 4.6, sharex=True, height_ratios=(3, 3, 1))
    panels = {"expression": truth.action_units, "distractor, on a scale of its own": truth.distraction}
    for ax, (name, units) in zip(axes[:2, 0], panels.items(), strict=True):
        used = np.flatnonzero(units.max(axis=0) > 0)
        shown = units[:, used].T if len(used) else np.zeros((1, len(units)))
        most = 1 if ax is axes[0, 0] else max(shown.max(), 0.1)
        image = ax.imshow(shown, aspect="auto", cmap="Blues", vmin=0, vmax=most, interpolation="nearest")
        figure.colorbar(image, ax=ax, label="intensity")
        ax.set_yticks(range(len(shown)), [truth.unit_names[unit] for unit in used] or ["none"])
        ax.set_title(name, loc="left")
    for frame, name in (
        (truth.onset, "onset"),
        (truth.apex_start, "apex"),
        (truth.apex_end, "apex ends"),
        (truth.offset, "offset"),
    ):
        if frame >= 0:
            axes[0, 0].axvline(frame, color=ORANGE)
            axes[0, 0].annotate(name, (frame, 1), (0, 2), "data", ha="center", color=ORANGE, textcoords="offset points")
            axes[0, 0].texts[-1].xycoords = axes[0, 0].get_xaxis_transform()
    ax = axes[2, 0]
    ax.plot(truth.blink, color=GREY, label="blink")
    ax.plot(truth.talk, color=PURPLE, label="talking")
    ax.plot(sampled, np.full(len(sampled), -0.15), "^", color="black", markersize=4, label="sampled", clip_on=False)
    ax.set(xlabel="frame", ylim=(-0.25, 1.1), yticks=(0, 1))
    ax.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.9))
    return figure


# What the columns of ``adatosk.synthetic.dynamics.dynamics`` are called in a figure, and what they may reach.
_MOTION = {
    "largest": ("share of the change\nin the largest step", 1),
    "four_largest": ("share of the change\nin the four largest", 1),
    "moving": ("steps that move\n(of 7)", 7),
    "above_middle": ("share of the frames\nabove the middle", 1),
    "range": ("range of the\nsummed intensity", None),
}


def motion(clips: Mapping[str, np.ndarray], figures: pd.DataFrame) -> Figure:
    """How expressions move: above, the strength of one clip of each kind; below, means over clips beside real ones.

    Args:
        clips: by kind, action units ``(T, units)`` of a clip.
        figures: one row per kind, with the columns of :func:`adatosk.synthetic.dynamics.dynamics`.
    """
    import seaborn as sns

    figure = plt.figure(figsize=(7.4, 4.2), layout="constrained")
    plt.close(figure)
    upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.1))
    highest = max(units.sum(1).max() for units in clips.values())
    for ax, (name, units) in zip(upper.subplots(1, len(clips), squeeze=False)[0], clips.items(), strict=True):
        ax.fill_between(np.arange(len(units)), units.sum(1), color=sns.color_palette()[list(figures.index).index(name)])
        ax.set(xlabel="frame", title=f"one {name} clip", ylim=(0, 1.05 * highest))
    upper.axes[0].set_ylabel("summed intensity")
    for ax, (column, (title, most)) in zip(lower.subplots(1, len(_MOTION)), _MOTION.items(), strict=True):
        sns.barplot(x=list(figures.index), y=figures[column], hue=list(figures.index), saturation=1, ax=ax)
        for bars in ax.containers:
            ax.bar_label(bars, fmt="%.2f", padding=1)
        ax.set_title(title, fontsize=SMALLEST)
        ax.set(ylabel="", yticks=[], ylim=(0, 1.12 * (most or figures[column].max())))
        ax.tick_params(axis="x", rotation=30)
        ax.spines["left"].set_visible(False)
    return figure


def class_balance(clips: pd.DataFrame, classes: Sequence[str], by: str = "split") -> Figure:
    """Number of clips of each class, by ``split`` or ``fold``."""
    import seaborn as sns

    figure, ((ax,),) = new_figure(1, 1, 6.4, 2.4)
    sns.countplot(literal_labels(clips, "label"), x="label", hue=by, order=list(map(literal, classes)), ax=ax)
    ax.set(xlabel="", ylabel="clips")
    sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def sampling(spans: Mapping[str, tuple[int, Sequence[int]]]) -> Figure:
    """Which frames are sampled: by name, the number of frames in the clip and the indices of the sampled ones."""
    figure, ((ax,),) = new_figure(1, 1, 7, 0.7 + 0.34 * len(spans))
    for row, (length, indices) in enumerate(spans.values()):
        ax.barh(row, length, left=-0.5, height=0.5, color="0.88")
        ax.plot(indices, np.full(len(indices), row), "o", color=ORANGE, markersize=4)
    ax.set_yticks(range(len(spans)), list(map(literal, spans)))
    ax.invert_yaxis()
    ax.set(xlabel="frame of the clip")
    return figure
