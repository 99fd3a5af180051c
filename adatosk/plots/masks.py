"""The figures about the masks: Figures 1 and 3 of the paper, activation by class, and the masks' scores.

As in :mod:`adatosk.plots`, each function returns a closed figure, to show or to save.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from torch import Tensor

from adatosk.experiments.mask_scores import TARGETS
from adatosk.experiments.statistics import bounds
from adatosk.plots.frames import (
    SOFT_MASK,
    activation_colours,
    blow_up,
    colour_bar,
    excluded_patches,
    explain_cells,
    last_frames,
    pictures,
    show_visible,
    spread,
    steps_in_rows,
    tint_patches,
)
from adatosk.plots.style import SMALLEST, WIDEST, literal, literal_labels, new_figure
from adatosk.soft_mask import SoftMask

YELLOW = (1.0, 0.84, 0.0)
RED = (0.85, 0.1, 0.1)
# Shares of the kept tokens, by weight, from which on Figure 3 is yellow and red. The paper's is orange and red; orange
# is the border of active frames here. Red is the darker one: in this scale alone, lightness does not rise with rank.
_YELLOW_FROM, _RED_FROM = 0.8, 0.9
_FINE = 200
_LINE = "0.25"


def _essential_colours() -> Colormap:
    """Figure 3's colours over the rank of a weight: grey, purple, blue, then yellow and red; excluded is black."""
    # Up to a full blue only: the lightest shades would not tell from a bright face.
    colours = SOFT_MASK(np.linspace(0, 0.8, round(_YELLOW_FROM * _FINE)))[:, :3]
    steps = [(YELLOW, _RED_FROM - _YELLOW_FROM), (RED, 1 - _RED_FROM)]
    strong = [colour for colour, share in steps for _ in range(round(share * _FINE))]
    return ListedColormap([*colours, *strong], "essential").with_extremes(bad="black")


ESSENTIAL = _essential_colours()


def distinct_tokens(patches: Tensor, threshold: float) -> Tensor:
    """Which visible tokens show something new, and which repeat earlier ones at the same position.

    A token is compared with the last distinct one at its position, so that a slow change is also detected once it has
    accumulated. In the first frame, all tokens are distinct.

    Args:
        patches: pixels of visible tubelets, ``(n_t, n_s, pixels)``.
        threshold: mean absolute difference per pixel from which a token is new, in the unit of ``patches``.

    Returns:
        bool ``(n_t, n_s)``.
    """
    seen = patches[0]
    distinct = [torch.ones(len(seen), dtype=torch.bool)]
    for now in patches[1:]:
        new = (now - seen).abs().mean(dim=-1) > threshold
        seen = torch.where(new[:, None], now, seen)
        distinct.append(new)
    return torch.stack(distinct)


def redundancy(frames: np.ndarray, visible: Tensor, distinct: Tensor) -> Figure:
    """Figure 1: frames, what the hard mask leaves of them, and which of these tokens repeat earlier ones (grey).

    A yellow line joins each distinct token with the next distinct one at its position; the number of distinct tokens is
    below each column.

    Args:
        frames: uint8 ``(T, H, W, 3)``; the last frame of each tubelet is shown.
        visible: the hard mask, bool ``(N_s,)``.
        distinct: bool ``(n_t, n_s)``, from :func:`distinct_tokens`.
    """
    steps = len(distinct)
    shown = last_frames(frames, steps)
    left = show_visible(shown, visible)
    repeats = np.zeros((steps, len(visible)), dtype=bool)
    repeats[:, visible.numpy()] = ~distinct.numpy()
    faded = 90 + 0.25 * shown.mean(axis=-1, keepdims=True)
    third = np.where(blow_up(repeats, frames.shape[1])[..., None], faded.repeat(3, -1), left).astype(np.uint8)
    rows = {"frames": shown, "visible": left, "redundancy": third}
    figure = steps_in_rows(rows, len(frames))
    axes = np.array(figure.axes).reshape(3, steps)[2]
    for ax, new in zip(axes, distinct, strict=True):
        ax.set_xlabel(f"{int(new.sum())} new", fontsize=SMALLEST, labelpad=2)
    _join(figure, axes, distinct, visible, frames.shape[1])
    return figure


def _join(figure: Figure, axes: Sequence[Axes], distinct: Tensor, visible: Tensor, side: int) -> None:
    """Lines between the distinct tokens at a place, and their frames."""
    grid = round(len(visible) ** 0.5)
    size = side // grid
    for token, place in enumerate(visible.nonzero().flatten().tolist()):
        row, column = divmod(place, grid)
        # Places of one row get lines at different heights, or they would lie on each other.
        x, y = (column + 0.5) * size - 0.5, (row + 0.15 + 0.7 * column / max(1, grid - 1)) * size - 0.5
        steps = distinct[:, token].nonzero().flatten().tolist()
        for step in steps:
            corner = (column * size - 0.5, row * size - 0.5)
            axes[step].add_patch(Rectangle(corner, size, size, fill=False, edgecolor=YELLOW, linewidth=1.2))
        for first, second in pairwise(steps):
            ends = {"xyA": (x, y), "xyB": (x, y), "coordsA": "data", "coordsB": "data"}
            line = ConnectionPatch(**ends, axesA=axes[first], axesB=axes[second], color=YELLOW, linewidth=1.0)
            figure.add_artist(line)


def both_masks(frames: np.ndarray, visible: Tensor, mask: SoftMask, activation: Tensor) -> Figure:
    """Figure 3 with its five rows: frames, class-semantic activation, visible patches, CS mask, CA mask.

    In the last two rows a token's colour is the rank of its weight among the kept tokens of the clip: grey, purple and
    blue from a heavy to a light mask, the highest fifth yellow and its upper half red; excluded ones are hatched.
    Active frames (Eq. 5) have an orange border.

    Args:
        frames: uint8 ``(T, H, W, 3)``; the last frame of each tubelet is shown.
        visible: the hard mask of this clip, bool ``(N_s,)``.
        mask: of a batch of one clip, with both of its parts.
        activation: A (Eq. 10) of every patch, ``(n_t, N_s)``.
    """
    shown = last_frames(frames, mask.kept.shape[1])
    rows = {
        "frames": shown,
        "class-semantic\nactivation": tint_patches(shown, activation.detach().numpy(), activation_colours()),
        "visible\npatches": show_visible(shown, visible),
    }
    semantic, agnostic, active = mask.parts()
    for name, weights in (("CS mask", semantic), ("CA mask", agnostic.mean(dim=-1))):
        ranks = spread(_ranks(weights[0], mask.kept[0]), visible)
        rows[name] = tint_patches(shown, ranks, ESSENTIAL, ~visible.numpy())
    figure = steps_in_rows(rows, len(frames), active[0], excluded=excluded_patches(mask, visible), hatched=2)
    last = figure.axes[2 * mask.kept.shape[1] - 1]  # of the second row
    colour_bar(last, activation_colours(), activation.min().item(), activation.max().item())
    figure.set_figheight(figure.get_figheight() + 0.55)
    scale = {"location": "bottom", "shrink": 0.7, "aspect": 50, "pad": 0.01, "ticks": [0, _YELLOW_FROM, _RED_FROM, 1]}
    bar = figure.colorbar(ScalarMappable(cmap=ESSENTIAL), ax=figure.axes, **scale)
    bar.ax.set_xticklabels(["lowest", "80 %", "90 %", "highest"])
    bar.set_label("weight in the CS and CA masks, by its rank among the kept tokens of the clip")
    bar.outline.set_visible(False)
    explain_cells(figure)
    return figure


def _ranks(weights: Tensor, kept: Tensor) -> np.ndarray:
    """Ranks of the kept weights ``(n_t, n_s)``, spread over [0, 1]; NaN for excluded tokens."""
    values = weights.detach().masked_fill(~kept, torch.nan).numpy()
    ranks = pd.Series(values.ravel()).rank(method="average").to_numpy().reshape(values.shape)
    return (ranks - 1) / max(1, int(kept.sum()) - 1)


def activation_by_class(examples: Mapping[str, np.ndarray], maps: Mapping[str, Mapping[str, Tensor]]) -> Figure:
    """A face of each class, and below it rows of maps over its patches, each picture on its own scale, dark to light.

    Args:
        examples: a frame of each class, uint8 ``(H, W, 3)``.
        maps: by the row's name, values of the patches ``(N_s,)`` by class.
    """
    rows = {"example": np.stack(list(examples.values()))}
    for name, values in maps.items():
        colours = activation_colours()
        tinted = (tint_patches(examples[label][None], values[label][None].numpy(), colours) for label in examples)
        rows[name] = np.concatenate(list(tinted))
    figure = pictures(rows, list(examples), room=(0, 0.4))
    scale = {"location": "bottom", "shrink": 0.4, "aspect": 30, "pad": 0.01, "ticks": [0, 1]}
    bar = figure.colorbar(ScalarMappable(cmap=activation_colours()), ax=figure.axes, **scale)
    bar.ax.set_xticklabels(["lowest of its picture", "highest"])
    bar.outline.set_visible(False)
    return figure


def temporal_scores(scores: pd.DataFrame) -> Figure:
    """Precision and recall of the frames that each rule chooses, with 95 % intervals over the clips.

    The dashed line is the score of the same number of random frames, the dotted line the best that the clips allow.

    Args:
        scores: rows of :func:`adatosk.experiments.mask_scores.score_masks`, and a column ``frames`` that names the
        rule.
    """
    import seaborn as sns

    rows = scores[scores["target"] == "expression"]
    names = list(dict.fromkeys(rows["frames"]))
    figure, axes = new_figure(1, 2, 8.4, 0.9 + 0.34 * len(names), sharey=True)
    options = {"x": "value", "y": "frames", "order": names, "errorbar": bounds, "err_kws": {"linewidth": 1.2}}
    for ax, score in zip(axes[0], ("precision", "recall"), strict=True):
        part = rows[rows["score"] == score]
        sns.barplot(part, hue="frames", hue_order=names, ax=ax, **options)
        ax.axvline(part["chance"].mean(), color=_LINE, linestyle="--", label="chance")
        ax.axvline(part["best"].mean(), color=_LINE, linestyle=":", label="best possible")
        ax.set(xlabel=score, ylabel="", xlim=(0, 1.02))
    axes[0, 1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def spatial_scores(scores: pd.DataFrame, sources: Mapping[str, str], classes: Sequence[str]) -> Figure:
    """How the weight of masks lies on the moving regions, class by class, with 95 % intervals over the clips.

    Left the mass ratio, right the pointing game; the dashed line is the score of a random mask.

    Args:
        scores: rows of :func:`adatosk.experiments.mask_scores.score_masks`, and a column ``model``.
        sources: titles by source, one row each.
        classes: the classes to show.
    """
    import seaborn as sns

    scores = scores[(scores["target"] == "moving regions") & (scores["steps"] == "all")]
    scores = literal_labels(scores.assign(ratio=scores["value"] / scores["chance"]), "label")
    classes = list(map(literal, classes))
    figure, axes = new_figure(len(sources), 2, 8.4, 0.7 + 1.6 * len(sources), sharex=True, sharey="col")
    options = {"x": "label", "hue": "model", "order": classes, "errorbar": bounds, "err_kws": {"linewidth": 1.2}}
    for row, (source, title) in zip(axes, sources.items(), strict=True):
        part = scores[scores["source"] == source].groupby("score")
        points = part.get_group("pointing")
        sns.barplot(part.get_group("mass"), y="ratio", ax=row[0], **options)
        sns.barplot(points, y="value", ax=row[1], legend=False, **options)
        chance = points.groupby("label")["chance"].mean().reindex(classes)
        row[0].axhline(1, color=_LINE, linestyle="--")
        row[1].hlines(chance, np.arange(len(chance)) - 0.45, np.arange(len(chance)) + 0.45, _LINE, "--")
        row[0].set(xlabel="", ylabel=title)
        row[1].set(xlabel="", ylabel="", ylim=(0, 1))
    for ax, title in zip(axes[0], ("mass ratio", "pointing game"), strict=True):
        ax.set_title(title)
    handles, names = axes[0, 0].get_legend_handles_labels()
    for ax in axes[:, 0]:
        ax.get_legend().remove()
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    return figure


def scores_by_target(scores: pd.DataFrame, sources: Mapping[str, str]) -> Figure:
    """How the weight of masks lies on each target, over all classes, with 95 % intervals over the clips.

    Above the mass ratio, below the pointing game; the dashed lines are the score of a random mask.

    Args:
        scores: rows of :func:`adatosk.experiments.mask_scores.score_masks`, and a column ``model``.
        sources: names by source, one line each in every panel.
    """
    import seaborn as sns

    scores = scores.assign(ratio=scores["value"] / scores["chance"], name=scores["source"].map(sources))
    figure, axes = new_figure(2, len(TARGETS), WIDEST, 1.3 + 0.5 * len(sources), sharex="row", sharey=True)
    options = {"y": "name", "hue": "model", "order": list(sources.values()), "errorbar": bounds, "dodge": 0.4}
    options |= {"linestyle": "none", "markers": ["o", "s"], "markersize": 5, "err_kws": {"linewidth": 1.2}}
    for line, (score, x, title) in zip(
        axes, (("mass", "ratio", "mass ratio"), ("pointing", "value", "pointing game")), strict=True
    ):
        for ax, (target, steps) in zip(line, TARGETS, strict=True):
            part = scores[(scores["score"] == score) & (scores["target"] == target) & (scores["steps"] == steps)]
            sns.pointplot(part, x=x, ax=ax, **options)
            ax.axvline(1 if score == "mass" else part["chance"].mean(), color=_LINE, linestyle="--", zorder=0)
            ax.set(xlabel=title, ylabel="")
    handles, names = axes[0, 0].get_legend_handles_labels()
    for ax in axes.flat:
        ax.get_legend().remove()
    for ax, (target, steps) in zip(axes[0], TARGETS, strict=True):
        ax.set_title(target if steps == "all" else f"{target},\nin the steps of the {steps}")
    figure.legend(handles, names, loc="outside upper center", ncols=len(names), frameon=False)
    return figure
