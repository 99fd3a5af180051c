"""Controls to play with: masks that are redrawn when an option moves, and one frame of a clip at a time.

A stored notebook keeps the last picture, as any other output; the controls need a kernel.
"""

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Colormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from adatosk.clips import normalise
from adatosk.config import FRAME_DISTANCES
from adatosk.experiments.mask_scores import whole_activation
from adatosk.model import AdaTosk, with_mask_options
from adatosk.plots.frames import (
    SOFT_MASK,
    activation_colours,
    colour_bar,
    explain_cells,
    hatch_excluded,
    last_frames,
    spread,
    tint_patches,
)
from adatosk.plots.style import ORANGE, SMALLEST, WIDEST, literal, new_figure
from adatosk.soft_mask import SoftMask
from adatosk.tokens import complementary_masks, tube_mask
from adatosk.utils import seeds

GAP = 0.06  # between two frames of a strip, in frames


def explore(draw: Callable[..., Figure], controls: Mapping[str, Any]) -> None:
    """Show controls and the picture of their values, drawn again whenever one moves.

    Args:
        draw: gives a figure for the values of the controls, by name. A `ValueError` of it is shown above the picture,
            which then stays.
        controls: widgets of ipywidgets by the name of what they set.
    """
    import ipywidgets
    from IPython.display import display

    def values() -> dict[str, Any]:
        return {name: control.value for name, control in controls.items()}

    message = ipywidgets.HTML()
    layout = ipywidgets.Layout(grid_template_columns="repeat(auto-fill, minmax(300px, 1fr))")
    box = ipywidgets.VBox([ipywidgets.GridBox(list(controls.values()), layout=layout), message])
    text = {"text/plain": "The controls need a kernel: run this cell to move them."}
    display(dict(box._repr_mimebundle_() or {}) | text, raw=True)
    picture: Any = display(draw(**values()), display_id=True)

    def redraw(_: Any) -> None:
        try:
            figure = draw(**values())
        except ValueError as error:
            message.value = f"<b>Not possible:</b> {escape(str(error))}"
        else:
            message.value = ""
            picture.update(figure)

    for control in controls.values():
        control.observe(redraw, "value")


def explore_masks(model: AdaTosk, clips: Mapping[str, np.ndarray], chosen: str, seed: int = 0) -> None:
    """The soft masks of a trained model under other options than it was trained with.

    Args:
        model: with both parts of the soft mask, in evaluation mode.
        clips: frames uint8 ``(T, H, W, 3)`` by the clip's name.
        chosen: the clip to begin with.
        seed: of the hard mask.
    """
    import ipywidgets

    config, options = model.config, model.config.required_soft_mask
    wide = {"style": {"description_width": "130px"}, "layout": {"width": "auto"}}
    still = wide | {"continuous_update": False}
    controls = {
        "clip": ipywidgets.Dropdown(options=list(clips), value=chosen, description="clip", **wide),
        "distance": ipywidgets.Dropdown(
            options=sorted(FRAME_DISTANCES), value=options.distance, description="distance", **wide
        ),
        "top_k": ipywidgets.IntSlider(options.top_k, 1, config.steps - 1, description="active frames K", **still),
        "mask_ratio": ipywidgets.FloatSlider(
            config.mask_ratio, min=0, max=0.9, step=0.05, description="hard mask ratio ρ", **still
        ),
        "excluded_per_step": ipywidgets.IntSlider(
            options.excluded_per_step, 0, config.patches // config.steps, description="excluded a step", **still
        ),
        "temperature": ipywidgets.FloatLogSlider(
            options.temperature, min=-1.5, max=0.5, step=0.1, description="temperature", readout_format=".2f", **still
        ),
    }

    def draw(clip: str, mask_ratio: float, **changed: Any) -> Figure:
        other = with_mask_options(model, mask_ratio, **changed)
        visible = tube_mask(1, config.patches, mask_ratio, seeds.generator(seed))
        with torch.inference_mode():
            output = other(_batch(clips[clip]), visible, reconstruct=False)
        best = int(output.logits.argmax())
        said = f"{config.classes[best]}, {output.logits.softmax(dim=-1)[0, best]:.0%}"
        return mask_strips(clips[clip], visible[0], output.soft_mask, f"the model says {said}")

    explore(draw, controls)


def _batch(frames: np.ndarray) -> Tensor:
    return normalise(torch.from_numpy(frames).permute(3, 0, 1, 2)[None])  # (B, C, T, H, W)


def mask_strips(frames: np.ndarray, visible: Tensor, mask: SoftMask, title: str = "") -> Figure:
    """Frames and both soft masks as three strips; quicker to draw than :func:`adatosk.plots.masks_over_frames`.

    Args:
        frames: uint8 ``(T, H, W, 3)``; the last frame of each tubelet is shown.
        visible: the hard mask, bool ``(N_s,)``.
        mask: of a batch of one clip, with both of its parts.
    """
    shown = last_frames(frames, mask.kept.shape[1])
    semantic, agnostic, active = mask.parts()
    figure, axes = new_figure(3, 1, WIDEST, 3 * WIDEST / (len(shown) + 1.6) + 0.75)
    _strip(axes[0, 0], shown / 255, "frames")
    for (ax,), name, weights in zip(
        axes[1:], ("class-semantic", "class-agnostic"), (semantic, agnostic.mean(dim=-1)), strict=True
    ):
        values = spread(weights.masked_fill(~mask.kept, torch.nan)[0].numpy(), visible)
        _strip(ax, tint_patches(shown, values, SOFT_MASK, ~visible.numpy()), name)
        _scale(ax, SOFT_MASK, values)
        pitch = shown.shape[2] + round(GAP * shown.shape[2])
        for step, excluded in enumerate(np.isnan(values) & visible.numpy()):
            hatch_excluded(ax, excluded, step * pitch)
        for step in active[0].nonzero().flatten().tolist():
            corner = (step * pitch - 0.5, -0.5)
            ax.add_patch(
                Rectangle(corner, *shown.shape[1:3], fill=False, edgecolor=ORANGE, linewidth=2.5, clip_on=False)
            )
    axes[0, 0].set_title(literal(title), fontsize=SMALLEST + 1)
    explain_cells(figure)
    return figure


def _strip(ax: Axes, images: np.ndarray, name: str) -> None:
    """Images ``(n, H, W, 3)`` in [0, 1] side by side, white between them."""
    gap = np.ones((images.shape[1], round(GAP * images.shape[2]), 3))
    parts = [part for image in images for part in (gap, image)][1:]
    ax.imshow(np.concatenate(parts, axis=1), interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set_visible(False)
    ax.set_ylabel(name, rotation=0, ha="right", va="center")


def _scale(ax: Axes, colours: Colormap, values: np.ndarray) -> None:
    scale = ScalarMappable(Normalize(np.nanmin(values), np.nanmax(values)), colours)
    bar = ax.figure.colorbar(scale, ax=ax, ticks=scale.get_clim(), format="%.3g", fraction=0.02, pad=0.01, aspect=8)
    bar.outline.set_visible(False)


def explore_frames(
    model: AdaTosk, clips: Mapping[str, np.ndarray], visible: Mapping[str, Tensor], chosen: str, seed: int = 0
) -> None:
    """One moment of a clip at a time: the frame, A, and both soft masks.

    Args:
        model, clips, chosen: as for :func:`explore_masks`.
        visible: the hard mask of each clip, bool ``(N_s,)``.
        seed: of the complementary hard masks that A is put together from.
    """
    import ipywidgets

    config = model.config
    views = complementary_masks(1, config.patches, config.mask_ratio, seeds.generator(seed))
    known: dict[str, tuple[SoftMask, Tensor]] = {}

    def draw(clip: str, step: int) -> Figure:
        if clip not in known:
            with torch.inference_mode():
                mask = model(_batch(clips[clip]), visible[clip][None], reconstruct=False).soft_mask
                known[clip] = mask, whole_activation(model, _batch(clips[clip]), views)[0]
        return moment(clips[clip], visible[clip], *known[clip], step - 1)

    wide = {"style": {"description_width": "60px"}, "layout": {"width": "auto"}}
    controls = {
        "clip": ipywidgets.Dropdown(options=list(clips), value=chosen, description="class", **wide),
        "step": ipywidgets.IntSlider(config.steps // 2, 1, config.steps, description="step", **wide),
    }
    explore(draw, controls)


def moment(frames: np.ndarray, visible: Tensor, mask: SoftMask, activation: Tensor, step: int) -> Figure:
    """One tubelet step of a clip: its last frame, A of every patch, and both soft masks, on the clip's scales.

    Args:
        frames: uint8 ``(T, H, W, 3)``.
        visible: the hard mask, bool ``(N_s,)``.
        mask: of a batch of one clip, with both of its parts.
        activation: A (Eq. 10) of every patch, ``(n_t, N_s)``.
        step: from 0 to n_t - 1.
    """
    shown = last_frames(frames, mask.kept.shape[1])
    semantic, agnostic, active = mask.parts()
    figure, axes = new_figure(1, 4, WIDEST, 2.1)
    frame, *others = axes[0]
    frame.imshow(shown[step], interpolation="nearest")
    kept = mask.kept[0]
    panels: list[tuple[str, np.ndarray, Colormap, np.ndarray | None]]
    panels = [("activation map A", activation.numpy(), activation_colours(), None)]
    for name, weights in (("class-semantic mask", semantic[0]), ("class-agnostic mask", agnostic[0].mean(dim=-1))):
        values = spread(weights.masked_fill(~kept, torch.nan).numpy(), visible)
        panels.append((name, values, SOFT_MASK, ~visible.numpy()))
    for ax, (name, values, colours, hidden) in zip(others, panels, strict=True):
        ax.imshow(tint_patches(shown, values, colours, hidden)[step], interpolation="nearest")
        ax.set_title(name)
        if hidden is not None:
            hatch_excluded(ax, np.isnan(values[step]) & ~hidden)
        colour_bar(ax, colours, np.nanmin(values), np.nanmax(values))
    for ax in axes[0]:
        ax.set(xticks=[], yticks=[])
        ax.spines[:].set(visible=bool(active[0, step]), color=ORANGE, linewidth=2.5)
    frame.set_title(f"frame {len(frames) // len(shown) * (step + 1)}{', active' * bool(active[0, step])}")
    return figure
