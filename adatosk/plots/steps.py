"""The soft mask step by step, one figure per equation: differences, gate, transition, scores and token weights."""

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from adatosk.plots.frames import HATCHED, SOFT_MASK, score_colours
from adatosk.plots.style import BLUE, GREY, ORANGE, new_figure


def tokens_over_time(values: Tensor, kept: Tensor, label: str, mask: bool = False) -> Figure:
    """One value per visible token and tubelet step; excluded tokens are hatched.

    Args:
        values: ``(n_t, n_s)``.
        kept: bool of that shape.
        label: what the values are.
        mask: whether the values are weights of a soft mask, drawn in its colours, instead of scores.
    """
    figure, ((ax,),) = new_figure(1, 1, 5.6, 2.6)
    shown = np.ma.masked_array(values.detach().numpy(), ~kept.numpy()).T
    colours = (SOFT_MASK if mask else score_colours()).with_extremes(bad=(0, 0, 0, 0))
    ax.add_patch(Rectangle((-0.5, -0.5), *shown.shape[::-1], **HATCHED, zorder=0))
    image = ax.imshow(shown, aspect="auto", cmap=colours, interpolation="nearest")
    ax.set(xlabel="tubelet step $t$", ylabel="visible token $s$")
    ax.set_xticks(range(len(values)), range(1, len(values) + 1))
    ax.yaxis.set_major_locator(MaxNLocator(6, integer=True))
    figure.colorbar(image, label=label)
    ax.legend(handles=[Patch(**HATCHED, label="excluded")], frameon=False, loc="lower right", bbox_to_anchor=(1, 0.98))
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
    handles = [Patch(facecolor=colour, label=name) for name, colour in (("active frame", ORANGE), ("other", GREY))]
    ax.legend(handles=handles, frameon=False, ncols=2, loc="lower left", bbox_to_anchor=(0, 0.98))
    if intensity is not None:
        twin = ax.twinx()
        twin.plot(steps, intensity, color=BLUE, marker="o")
        twin.set_ylabel("true expression", color=BLUE)
        twin.set_ylim(-0.03, 1.03)
        twin.spines["right"].set_visible(True)
    return figure


def gate_weights(weights: Tensor) -> Figure:
    """Weights of the channel gate (Eq. 6), ``(active frames, D)``, sorted by their mean over the frames."""
    import seaborn as sns

    figure, ((ax,),) = new_figure(1, 1, 5.6, 0.9 + 0.25 * len(weights))
    shown = weights.detach().numpy()
    sns.heatmap(shown[:, shown.mean(0).argsort()], ax=ax, cmap="vlag", center=1, cbar_kws={"label": "weight"})
    ax.set(xlabel="channel, sorted", ylabel="active frame", xticks=[], yticks=[])
    return figure


def transition(probabilities: Tensor) -> Figure:
    """P (Eq. 9), ``(tokens of frame t+1, tokens of frame t)``; each column sums to 1."""
    import seaborn as sns

    figure, ((ax,),) = new_figure(1, 1, 3.9, 3.0)
    sns.heatmap(probabilities.detach().numpy(), ax=ax, cmap="mako", vmin=0, square=True, cbar_kws={"label": "$P$"})
    ax.set(xlabel="token of frame 1", ylabel="token of frame 2", xticks=[], yticks=[])
    return figure
