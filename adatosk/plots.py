"""The figures: each function takes arrays, tensors or tables and gives back a closed figure, to show or to save.

Colours tell apart without red and green; a value's colour also gets lighter, so it survives grey print.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from adatosk.clips import IMAGENET_MEAN, IMAGENET_STD
from adatosk.config import ModelConfig
from adatosk.model import Output
from adatosk.soft_mask import SoftMask
from adatosk.synthetic import GroundTruth
from adatosk.tokens import gather_patches, patchify, positions_of, unpatchify

# Figure 3: "colors from blue to purple to gray/black represent the soft mask degree, from light to heavy".
SOFT_MASK = LinearSegmentedColormap.from_list("soft mask", ["#454545", "#6f5a86", "#8a6fd0", "#6fa8ff", "#b5dcff"])
SCORE = sns.color_palette("flare", as_cmap=True)
SOFT_MASK, SCORE = (colours.with_extremes(bad="black") for colours in (SOFT_MASK, SCORE))  # excluded tokens
ACTIVATION = sns.color_palette("rocket", as_cmap=True)
HIDDEN = (0.93, 0.93, 0.93)
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
    """``text`` for a figure, as it is: a class named ``$\\frac$`` is no formula, and ``_x`` is in the legend, too."""
    # Matplotlib leaves out of a legend what begins with an underscore; a space without width goes before it.
    return ("\u200b" if text.startswith("_") else "") + text.replace("$", r"\$")


def literal_labels(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """A copy whose ``columns`` of names are drawn as they are."""
    return table.assign(**{column: table[column].map(literal) for column in columns})


def _picture(ax: Axes, image: np.ndarray, title: str = "") -> None:
    ax.imshow(image, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=8, pad=2)
    ax.spines[:].set_visible(False)


def pictures(rows: Mapping[str, np.ndarray], titles: Sequence[str] = ()) -> Figure:
    """Rows of images, such as the frames of several clips.

    Args:
        rows: images uint8 ``(N, H, W, 3)`` by the row's name; rows may differ in length.
        titles: of the columns.
    """
    columns, size = max(map(len, rows.values())), 0.95  # inches
    width = size * columns + 0.08 * max(len(line) for name in rows for line in name.split("\n"))
    figure, axes = new_figure(len(rows), columns, width, size * len(rows) + 0.25 * bool(titles))
    for row, (name, images) in enumerate(rows.items()):
        line = axes[row]
        for ax in line[len(images) :]:
            ax.axis("off")
        for place, (ax, image) in enumerate(zip(line, images, strict=False)):
            _picture(ax, image, literal(titles[place]) if titles and row == 0 else "")
        line[0].set_ylabel(literal(name), rotation=0, ha="right", va="center")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.02, wspace=0, hspace=0)
    return figure


def show_visible(frames: np.ndarray, visible: Tensor) -> np.ndarray:
    """Frames uint8 ``(T, H, W, 3)`` with the patches that the hard mask, bool ``(N_s,)``, hides in light grey."""
    mask = blow_up(visible[None].numpy(), frames.shape[1])[0]
    return np.where(mask[None, :, :, None], frames, np.uint8(255 * np.array(HIDDEN)))


def blow_up(grid: np.ndarray, side: int) -> np.ndarray:
    """Values of patches ``(n, N_s)`` to images ``(n, side, side)``."""
    patches = round(grid.shape[1] ** 0.5)
    grid = grid.reshape(len(grid), patches, patches)
    return grid.repeat(side // patches, axis=1).repeat(side // patches, axis=2)


def tint_patches(
    frames: np.ndarray, values: np.ndarray, cmap: Colormap, hidden: np.ndarray | None = None
) -> np.ndarray:
    """Frames ``(n, H, W, 3)`` tinted by the values of their patches ``(n, N_s)``; NaN is black, ``hidden`` grey."""
    low, high = np.nanmin(values), np.nanmax(values)
    scaled = (values - low) / (high - low if high > low else 1)
    tint = cmap(blow_up(np.ma.masked_invalid(scaled), frames.shape[1]))[..., :3]
    grey = frames.mean(axis=-1, keepdims=True) / 255
    shown = np.clip(tint * (0.45 + 0.75 * grey), 0, 1)
    if hidden is not None:
        shown[:, blow_up(hidden[None], frames.shape[1])[0]] = HIDDEN
    return shown


def masks_over_frames(frames: np.ndarray, visible: Tensor, mask: SoftMask, activation: Tensor | None = None) -> Figure:
    """Figure 3: both soft masks over the frames, in its colours; beneath them the final mask (Eq. 12).

    The active frames (Eq. 5) have an orange border; excluded tokens are black, hidden patches light grey. Each row's
    colours span its own values.

    Args:
        frames: uint8 ``(T, H, W, 3)``; the last frame of each tubelet is shown.
        visible: the hard mask of this clip, bool ``(N_s,)``.
        mask: of a batch of one clip, with both of its parts.
        activation: A (Eq. 10) of every patch, ``(n_t, N_s)``; its row is left out by default.
    """
    steps = mask.kept.shape[1]
    tubelet = len(frames) // steps
    shown, hidden = frames[tubelet - 1 :: tubelet], ~visible.numpy()

    def spread(weights: Tensor) -> np.ndarray:
        """Weights of visible tokens ``(1, n_t, n_s)`` to all patches ``(n_t, N_s)``."""
        grid = np.full((steps, len(hidden)), np.nan)
        grid[:, ~hidden] = weights.masked_fill(~mask.kept, torch.nan)[0].detach().numpy()
        return grid

    rows = {"frames": shown}
    if activation is not None:
        rows["activation\nmap"] = tint_patches(shown, activation.detach().numpy(), ACTIVATION)
    rows["visible\npatches"] = show_visible(shown, visible)
    parts = (mask.semantic, mask.agnostic.mean(dim=-1), mask.weights.mean(dim=-1))
    for name, weights in zip(("class-semantic\nmask", "class-agnostic\nmask", "final mask"), parts, strict=True):
        rows[name] = tint_patches(shown, spread(weights), SOFT_MASK, hidden)
    figure = pictures(rows, [str(tubelet * (step + 1)) for step in range(steps)])
    for row in np.array(figure.axes).reshape(len(rows), steps)[-2:]:
        for step in mask.active[0].nonzero().flatten().tolist():
            row[step].spines[:].set(visible=True, color=ORANGE, linewidth=2.5)
    return figure


def tokens_over_time(values: Tensor, kept: Tensor, label: str, mask: bool = False) -> Figure:
    """One value a visible token and tubelet step; excluded tokens are black.

    Args:
        values: ``(n_t, n_s)``.
        kept: bool of that shape.
        label: what the values are.
        mask: whether they are weights of a soft mask, in its colours, and not scores.
    """
    figure, ((ax,),) = new_figure(1, 1, 5.6, 2.6)
    shown = np.ma.masked_array(values.detach().numpy(), ~kept.numpy()).T
    image = ax.imshow(shown, aspect="auto", cmap=SOFT_MASK if mask else SCORE, interpolation="nearest")
    ax.set(xlabel="tubelet step $t$", ylabel="visible token $s$")
    ax.set_xticks(range(len(values)), range(1, len(values) + 1))
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.colorbar(image, label=label)
    return figure


def frame_differences(differences: Tensor, active: Tensor, intensity: np.ndarray | None = None) -> Figure:
    """τ between neighbouring tubelet steps (Eq. 4), the active ones in orange (Eq. 5).

    Args:
        differences: ``(n_t - 1)``.
        active: bool ``(n_t,)``.
        intensity: strength of the expression at each step, ``(n_t,)`` in [0, 1], where it is known.
    """
    figure, ((ax,),) = new_figure(1, 1, 5.6, 2.4)
    steps = np.arange(1, len(active) + 1)
    colours = [ORANGE if flag else GREY for flag in active[1:].tolist()]
    ax.bar(steps[1:], differences.detach().numpy(), color=colours, width=0.7)
    ax.set(xlabel="tubelet step $t$", ylabel=r"$\tau(t-1, t)$", xticks=steps, xlim=(0.5, len(steps) + 0.5))
    if intensity is not None:
        twin = ax.twinx()
        twin.plot(steps, intensity, color=BLUE, marker="o")
        twin.set_ylabel("true expression", color=BLUE)
        twin.set_ylim(-0.03, 1.03)
        twin.spines["right"].set_visible(True)
    return figure


def gate_weights(weights: Tensor) -> Figure:
    """Weights of the channel gate (Eq. 6), ``(active frames, D)``, sorted by their mean over the frames."""
    figure, ((ax,),) = new_figure(1, 1, 5.6, 0.9 + 0.25 * len(weights))
    shown = weights.detach().numpy()
    sns.heatmap(shown[:, shown.mean(0).argsort()], ax=ax, cmap="vlag", center=1, cbar_kws={"label": "weight"})
    ax.set(xlabel="channel, sorted", ylabel="active frame", xticks=[], yticks=[])
    return figure


def transition(probabilities: Tensor) -> Figure:
    """P (Eq. 9), ``(tokens of frame t+1, tokens of frame t)``; each column sums to 1."""
    figure, ((ax,),) = new_figure(1, 1, 3.9, 3.0)
    sns.heatmap(probabilities.detach().numpy(), ax=ax, cmap="mako", vmin=0, square=True, cbar_kws={"label": "$P$"})
    ax.set(xlabel="token of frame 1", ylabel="token of frame 2", xticks=[], yticks=[])
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


def action_units(truth: GroundTruth, sampled: Sequence[int] = ()) -> Figure:
    """What is known about a rendered clip: action units of the expression and of the distractor, blinks and talking.

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
    ax.plot(sampled, np.full(len(sampled), -0.15), "^", color=ORANGE, markersize=4, label="sampled", clip_on=False)
    ax.set(xlabel="frame", ylim=(-0.25, 1.1), yticks=(0, 1))
    ax.legend(frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1, 0.9))
    return figure


def class_balance(clips: pd.DataFrame, classes: Sequence[str], by: str = "split") -> Figure:
    """Number of clips of each class, by ``split`` or ``fold``."""
    figure, ((ax,),) = new_figure(1, 1, 6.4, 2.4)
    sns.countplot(literal_labels(clips, "label"), x="label", hue=by, order=list(map(literal, classes)), ax=ax)
    ax.set(xlabel="", ylabel="clips")
    sns.move_legend(ax, "center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def sampling(spans: Mapping[str, tuple[int, Sequence[int]]]) -> Figure:
    """Which frames are taken: by name, the number of frames in the clip and the indices of those taken."""
    figure, ((ax,),) = new_figure(1, 1, 7, 0.7 + 0.34 * len(spans))
    for row, (length, indices) in enumerate(spans.values()):
        ax.barh(row, length, left=-0.5, height=0.5, color="0.88")
        ax.plot(indices, np.full(len(indices), row), "o", color=ORANGE, markersize=4)
    ax.set_yticks(range(len(spans)), list(map(literal, spans)))
    ax.invert_yaxis()
    ax.set(xlabel="frame of the clip")
    return figure


def learning_curves(logs: Mapping[str, pd.DataFrame]) -> Figure:
    """Losses and, where it was taken, WAR on the test split, epoch by epoch; ``logs`` are ``Run.log`` by name."""
    panels = {
        "reconstruction_loss": r"$\mathcal{L}_{rec}$ (train)",
        "classification_loss": r"$\mathcal{L}_{cls}$ (train)",
        "test_war_views_1": "WAR, 1 view (test, %)",
    }
    figure, axes = new_figure(1, 3, 9, 2.6)
    for ax, (column, label) in zip(axes[0], panels.items(), strict=True):
        for (name, log), style in zip(logs.items(), ("-", "--", ":", "-."), strict=False):
            there = log.dropna(subset=column)
            ax.plot(there["epoch"], there[column], style, marker="o", markersize=4, label=name)
        ax.set(xlabel="epoch", title=label)
        ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes[0, 0].legend(frameon=False)
    return figure


def repaint(output: Output, video: Tensor, config: ModelConfig) -> np.ndarray:
    """Clips with their hidden patches as the decoder paints them: uint8 ``(B, T, H, W, 3)``.

    The decoder is trained on patches normalised to zero mean and unit variance (VideoMAE), so to look at them each gets
    the mean and deviation of the true patch back: structure is the model's, brightness is not.
    """
    patches = patchify(video, config.tubelet, config.patch_size)
    positions = positions_of(~output.visible, output.reconstruction.shape[2])
    painted = output.reconstruction.unflatten(-1, (3, -1))  # (B, n_t, m, C, t·h·w)
    if config.normalise_target:
        true = gather_patches(patches, positions).unflatten(-1, (3, -1))
        painted = painted * true.std(dim=-1, keepdim=True) + true.mean(dim=-1, keepdim=True)
    index = positions[:, None, :, None].expand(-1, patches.shape[1], -1, patches.shape[3])
    clips = unpatchify(patches.scatter(2, index, painted.flatten(-2)), config.tubelet, config.patch_size)
    mean, std = (torch.tensor(values).view(3, 1, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    return rearrange(((clips * std + mean).clamp(0, 1) * 255).byte(), "b c t h w -> b t h w c").numpy()


def confusions(matrices: Mapping[str, Sequence[Sequence[int]]], classes: Sequence[str]) -> Figure:
    """Confusion matrices side by side, each row in percent of its class; counts ``(classes, classes)`` by title."""
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
    figure, ((ax,),) = new_figure(1, 1, 7.6, 2.6)
    shown = table.rename(index=literal, columns=literal).rename_axis("model")
    long = shown.reset_index().melt("model", var_name="class", value_name="recall")
    sns.barplot(long, x="class", y="recall", hue="model", ax=ax)
    ax.set(xlabel="", ylabel="recall (%)", ylim=(0, 100))
    sns.move_legend(ax, "lower center", bbox_to_anchor=(0.5, 1), ncols=len(table), title=None, frameon=False)
    return figure


def macs_by_part(parts: pd.DataFrame) -> Figure:
    """Where the multiply-accumulates go: stacked bars in GMACs; rows are models, columns parts."""
    figure, ((ax,),) = new_figure(1, 1, 7, 0.9 + 0.42 * len(parts))
    parts.plot.barh(stacked=True, ax=ax, width=0.7)
    for row, total in enumerate(parts.sum(axis=1)):
        ax.annotate(f"{total:.1f}", (total, row), (3, 0), textcoords="offset points", va="center")
    ax.invert_yaxis()
    ax.set(xlabel="GMACs of one forward pass", ylabel="")
    ax.margins(x=0.08)
    sns.move_legend(ax, "lower center", bbox_to_anchor=(0.45, 1), ncols=4, title=None, frameon=False)
    return figure


def table2_costs(costs: pd.DataFrame) -> Figure:
    """Table 2's cost against the number of excluded tokens, ours beside the paper's; from ``table2_cost``."""
    figure, axes = new_figure(1, 2, 7.6, 2.9, sharex=True)
    columns = {"gmacs": ("paper_gflops", "GMACs", 1), "saving": ("paper_saving", "saved against r = 0 (%)", 100)}
    for ax, (ours, (theirs, label, scale)) in zip(axes[0], columns.items(), strict=True):
        for (ratio, cells), colour in zip(costs.groupby("mask_ratio"), (BLUE, ORANGE, GREEN), strict=False):
            ax.plot(cells["r"], scale * cells[ours], "o-", color=colour, label=f"ours, {ratio:.0%} hidden")
            ax.plot(cells["r"], scale * cells[theirs], "s:", color=colour, label=f"paper, {ratio:.0%}")
        ax.set(xlabel="excluded tokens per frame $r$", ylabel=label, xticks=sorted(costs["r"].unique()))
    axes[0, 1].legend(frameon=False, bbox_to_anchor=(1, 0.5), loc="center left")
    figure.get_layout_engine().set(wspace=0.06)
    return figure
