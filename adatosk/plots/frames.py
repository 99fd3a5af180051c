"""Frames as pictures: rows of them, what the hard mask hides, masks drawn over them, repainted patches.

Excluded tokens are black and hatched, so that they cannot be taken for tokens of low weight or of a dark frame.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from einops import rearrange
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Colormap, LinearSegmentedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from torch import Tensor

from adatosk.clips import IMAGENET_MEAN, IMAGENET_STD
from adatosk.config import ModelConfig
from adatosk.model import Output
from adatosk.plots.style import ORANGE, SMALLEST, WIDEST, literal, new_figure, seaborn_colours
from adatosk.soft_mask import SoftMask
from adatosk.tokens import gather_patches, patchify, positions_of, unpatchify

# Figure 3: "colors from blue to purple to gray/black represent the soft mask degree, from light to heavy".
SOFT_MASK = LinearSegmentedColormap.from_list("soft mask", ["#454545", "#6f5a86", "#8a6fd0", "#6fa8ff", "#b5dcff"])
SOFT_MASK = SOFT_MASK.with_extremes(bad="black")  # excluded tokens
HIDDEN = (0.93, 0.93, 0.93)
HATCHED = {"facecolor": "black", "edgecolor": "0.75", "hatch": "////", "linewidth": 0}  # excluded tokens


def score_colours() -> Colormap:
    """Of M and other values of single tokens; excluded tokens are black."""
    return seaborn_colours("flare").with_extremes(bad="black")


def activation_colours() -> Colormap:
    """Of A, dark to light."""
    return seaborn_colours("rocket")


def _picture(ax: Axes, image: np.ndarray, title: str = "") -> None:
    ax.imshow(image, interpolation="nearest")
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=SMALLEST, pad=2)
    ax.spines[:].set_visible(False)


def pictures(rows: Mapping[str, np.ndarray], titles: Sequence[str] = (), room: tuple[float, float] = (0, 0)) -> Figure:
    """Rows of images, such as the frames of several clips.

    Args:
        rows: images uint8 ``(N, H, W, 3)`` by the row's name; rows may differ in length.
        titles: of the columns.
        room: inches to leave for what stands on their right, and below them.
    """
    columns = max(map(len, rows.values()))
    beside = room[0] + 0.08 * max(len(line) for name in rows for line in name.split("\n"))
    size = min(0.95, (WIDEST - beside) / columns)  # inches
    height = size * len(rows) + 0.25 * bool(titles) + room[1]
    figure, axes = new_figure(len(rows), columns, size * columns + beside, height)
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
    shown = np.clip(tint * (0.6 + 0.5 * grey), 0, 1)
    if hidden is not None:
        shown[:, blow_up(hidden[None], frames.shape[1])[0]] = HIDDEN
    return shown


def masks_over_frames(frames: np.ndarray, visible: Tensor, mask: SoftMask, activation: Tensor | None = None) -> Figure:
    """Figure 3: both soft masks over the frames, in its colours; beneath them the final mask (Eq. 12).

    The active frames (Eq. 5) have an orange border; excluded tokens are hatched, hidden patches light grey. Each row's
    colours span its own values, which the bar beside it gives.

    Args:
        frames: uint8 ``(T, H, W, 3)``; the last frame of each tubelet is shown.
        visible: the hard mask of this clip, bool ``(N_s,)``.
        mask: of a batch of one clip, with both of its parts; `ValueError` for another.
        activation: A (Eq. 10) of every patch, ``(n_t, N_s)``; its row is left out by default.
    """
    shown = last_frames(frames, mask.kept.shape[1])
    rows, scales = {"frames": shown}, {}
    if activation is not None:
        values = activation.detach().numpy()
        rows["activation\nmap"] = tint_patches(shown, values, activation_colours())
        scales["activation\nmap"] = (activation_colours(), values)
    rows["visible\npatches"] = show_visible(shown, visible)
    semantic, agnostic, active = mask.parts()
    parts = (semantic, agnostic.mean(dim=-1), mask.weights.mean(dim=-1))
    for name, weights in zip(("class-semantic\nmask", "class-agnostic\nmask", "final mask"), parts, strict=True):
        values = spread(weights.masked_fill(~mask.kept, torch.nan)[0].detach().numpy(), visible)
        rows[name] = tint_patches(shown, values, SOFT_MASK, ~visible.numpy())
        scales[name] = (SOFT_MASK, values)
    figure = steps_in_rows(rows, len(frames), active[0], bordered=2, excluded=excluded_patches(mask, visible))
    last = dict(zip(rows, np.array(figure.axes).reshape(len(rows), -1)[:, -1], strict=True))
    for name, (colours, values) in scales.items():
        colour_bar(last[name], colours, np.nanmin(values), np.nanmax(values))
    explain_cells(figure)
    return figure


def masks_in_brief(frames: np.ndarray, visible: Tensor, mask: SoftMask, columns: int = 4) -> Figure:
    """The method in a picture that can be read at a small size: frames, visible patches, and the final mask (Eq. 12).

    Args:
        frames, visible, mask: as for :func:`masks_over_frames`.
        columns: number of tubelet steps to show, evenly spaced.
    """
    shown = last_frames(frames, mask.kept.shape[1])
    values = spread(mask.weights.mean(dim=-1).masked_fill(~mask.kept, torch.nan)[0].detach().numpy(), visible)
    rows = {
        "frames": shown,
        "visible\npatches": show_visible(shown, visible),
        "soft mask": tint_patches(shown, values, SOFT_MASK, ~visible.numpy()),
    }
    steps = np.linspace(0, len(shown) - 1, columns).round().astype(int).tolist()
    _, _, active = mask.parts()
    excluded = excluded_patches(mask, visible)
    figure = steps_in_rows(rows, len(frames), active[0], excluded=excluded, hatched=1, columns=steps)
    colour_bar(figure.axes[-1], SOFT_MASK, np.nanmin(values), np.nanmax(values))
    explain_cells(figure)
    return figure


def colour_bar(ax: Axes, colours: Colormap, low: float, high: float) -> None:
    """A bar beside the last picture of a row, which says what values the darkest and the lightest colour are."""
    scale = ScalarMappable(Normalize(low, high if high > low else low + 1), colours)
    place = ax.inset_axes((1.08, 0.06, 0.09, 0.88))  # within the grid, so that the rows stay aligned
    ax.figure.colorbar(scale, cax=place, ticks=scale.get_clim(), format="%.3g").outline.set_visible(False)


def explain_cells(figure: Figure) -> None:
    """A legend for what no bar of colours says: excluded, hidden, and the border of active frames."""
    handles = [
        Patch(**HATCHED, label="excluded"),
        Patch(facecolor=HIDDEN, label="hidden"),
        Patch(facecolor="none", edgecolor=ORANGE, linewidth=2, label="active frame"),
    ]
    figure.legend(handles=handles, frameon=False, ncols=3, fontsize=SMALLEST, loc="outside lower center")


def hatch_excluded(ax: Axes, excluded: np.ndarray, left: int = 0) -> None:
    """Hatch the excluded patches, bool ``(N_s,)``, of the picture that an axis shows, ``left`` pixels from its edge."""
    patches, side = round(len(excluded) ** 0.5), ax.images[0].get_array().shape[0]
    size = side / patches
    rows, columns = np.divmod(np.flatnonzero(excluded), patches)
    corners = [(left + column * size - 0.5, row * size - 0.5) for row, column in zip(rows, columns, strict=True)]
    if corners:
        ax.add_collection(PatchCollection([Rectangle(corner, size, size) for corner in corners], **HATCHED))


def last_frames(frames: np.ndarray, steps: int) -> np.ndarray:
    """The last frame of each tubelet: ``(T, H, W, 3)`` to ``(n_t, H, W, 3)``."""
    return frames[len(frames) // steps - 1 :: len(frames) // steps]


def spread(values: np.ndarray, visible: Tensor) -> np.ndarray:
    """Values of visible tokens ``(n_t, n_s)`` to all patches ``(n_t, N_s)``, NaN where hidden."""
    grid = np.full((len(values), len(visible)), np.nan)
    grid[:, visible.numpy()] = values
    return grid


def excluded_patches(mask: SoftMask, visible: Tensor) -> np.ndarray:
    """Which patches a soft mask of one clip excludes, bool ``(n_t, N_s)``; ``visible`` is bool ``(N_s,)``."""
    return spread((~mask.kept[0]).numpy(), visible) == 1


def steps_in_rows(
    rows: Mapping[str, np.ndarray],
    frames: int,
    active: Tensor | None = None,
    bordered: int = 1,
    excluded: np.ndarray | None = None,
    hatched: int = 3,
    columns: Sequence[int] | None = None,
) -> Figure:
    """:func:`pictures` with a column per tubelet step, titled by the number of its last frame.

    Args:
        frames: T.
        active: bool ``(n_t,)``; these steps get an orange border in the last ``bordered`` rows.
        excluded: bool ``(n_t, N_s)``; these patches are hatched in the last ``hatched`` rows.
        columns: steps to show, from 0; all by default.
    """
    steps = len(next(iter(rows.values())))
    chosen = range(steps) if columns is None else columns
    room = (0, 0) if excluded is None else (0.75, 0.35)  # for bars of colours, and the legend
    shown = {name: images[list(chosen)] for name, images in rows.items()}
    figure = pictures(shown, [str(frames // steps * (step + 1)) for step in chosen], room)
    for step, column in zip(chosen, np.array(figure.axes).reshape(len(rows), -1).T, strict=True):
        for ax in column[-bordered:] if active is not None and active[step] else ():
            ax.spines[:].set(visible=True, color=ORANGE, linewidth=2.5)
        if excluded is not None:
            for ax in column[-hatched:]:
                hatch_excluded(ax, excluded[step])
    return figure


def repaint(output: Output, video: Tensor, config: ModelConfig) -> np.ndarray:
    """Clips with their hidden patches as reconstructed by the decoder: uint8 ``(B, T, H, W, 3)``.

    The decoder is trained on patches normalised to zero mean and unit variance (VideoMAE), so for display each is
    rescaled to the mean and standard deviation of the true patch: the structure is the model's, the brightness is not.
    """
    if output.reconstruction is None:
        raise ValueError("nothing was reconstructed: call the model with reconstruct=True")
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
