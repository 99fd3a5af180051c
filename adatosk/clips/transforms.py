"""Augmentation of a clip: one draw for all of its frames, so that the face moves and not the crop.

A transform is drawn as a :class:`Window`, a few numbers, and applied by :func:`cut` to one clip on a CPU or by
:func:`cut_batch` to a whole batch on a GPU, where a crop, a resize and a flip are two matrix products.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

# Sides of a crop as shares of the frame's shorter side (Wang et al., TSN, https://arxiv.org/abs/1608.00859; VideoMAE).
SCALES = (1.0, 0.875, 0.75, 0.66)

# Clips that are held as floats at once on a GPU: a frame of 256 pixels takes 12.6 MB a clip.
_AS_FLOATS = 16


class Window(NamedTuple):
    """What is taken of a frame, in pixels.

    Attributes:
        top, left, height, width: a rectangle of the frame,
        tall, wide: the size to which it is resized,
        down, across: the corner, in that, of the square that the model sees,
        mirrored: 1 if that is mirrored, otherwise 0.
    """

    top: int
    left: int
    height: int
    width: int
    tall: int
    wide: int
    down: int = 0
    across: int = 0
    mirrored: int = 0


Choice = Callable[..., Window]


def train_window(image_size: int, min_crop: float = 0.66, flip: bool = True) -> Choice:
    """``choice(rows, columns, generator) -> Window``: multi-scale crop and horizontal flip, see :func:`draw_window`."""
    scales = tuple(scale for scale in SCALES if scale >= min_crop)
    if not scales:
        raise ValueError(f"min_crop={min_crop} leaves no crop scale: it must be at most 1")
    return partial(draw_window, image_size=image_size, scales=scales, flip=flip)


def eval_window(image_size: int) -> Choice:
    """``choice(rows, columns, generator=None) -> Window``: the shorter side to ``image_size``, the central square."""
    return partial(central_window, image_size=image_size)


def picture(frame: np.ndarray, square: Sequence[int] | None, size: int) -> Tensor:
    """A frame ``(H, W, C)``, cropped to a square (left, top, right, bottom) if given: uint8 ``(C, size, size)``."""
    if square is not None:
        left, top, right, bottom = square
        frame = frame[top:bottom, left:right]
    image = torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1)
    return cut(image[None], central_window(image.shape[1], image.shape[2], image_size=size), size)[0]


def draw_window(
    rows: int,
    columns: int,
    generator: torch.Generator,
    image_size: int,
    scales: tuple[float, ...] = SCALES,
    flip: bool = True,
) -> Window:
    """Draw a crop's scale and position, and whether it is mirrored, as half of the clips are.

    The crop's height and width are drawn among neighbouring ``scales`` of the frame's shorter side, as in TSN and
    VideoMAE, so its aspect ratio stays near 1; its position is drawn uniformly, whereas they draw one of 13 fixed ones.

    Args:
        rows, columns: height and width of the frame.
        generator: the only source of randomness.
        image_size: side of the result in pixels.
    """
    first, second, down, across, mirror = torch.rand(5, generator=generator).tolist()
    tall = int(first * len(scales))
    near = scales[max(0, tall - 1) : tall + 2]
    wide = near[int(second * len(near))]
    height, width = (max(1, round(scale * min(rows, columns))) for scale in (scales[tall], wide))
    top, left = int(down * (rows - height + 1)), int(across * (columns - width + 1))
    mirrored = int(flip and mirror < 0.5)
    return Window(top, left, height, width, image_size, image_size, mirrored=mirrored)


def central_window(rows: int, columns: int, generator: torch.Generator | None = None, *, image_size: int) -> Window:
    """The shorter side becomes ``image_size``, and the central square is taken; deterministic."""
    shorter = min(rows, columns)
    tall, wide = (int(image_size * side / shorter) for side in (rows, columns))
    down, across = (round((side - image_size) / 2) for side in (tall, wide))
    return Window(0, 0, rows, columns, tall, wide, down, across)


def cut(video: Tensor, window: Window, image_size: int) -> Tensor:
    """What a window takes of a clip, uint8 ``(T, C, H, W)``: uint8 ``(T, C, image_size, image_size)``."""
    top, left, height, width, tall, wide, down, across, mirrored = window
    video = _resize(video[..., top : top + height, left : left + width], tall, wide)
    video = video[..., down : down + image_size, across : across + image_size]
    return video.flip(-1) if mirrored else video


def _resize(video: Tensor, height: int, width: int) -> Tensor:
    # Pillow's antialiased filter on bytes. torchvision calls the same function, but takes seconds to import.
    if video.shape[-2:] == (height, width):
        return video
    return F.interpolate(video, (height, width), mode="bilinear", antialias=True)


def cut_batch(frames: Tensor, windows: Tensor, image_size: int) -> Tensor:
    """:func:`cut` of all clips of a batch at once, on their device, without a value that Python would wait for.

    The filter is Pillow's with the same integer weights, and products of bytes and these are exact in float32 (TF32,
    which torch does not use unless told, has too few bits), so that the pixels are those of :func:`cut`.

    Args:
        frames: uint8 ``(B, T, H, W, C)``; H and W are the largest frame's, and the others are padded.
        windows: a :class:`Window` of each clip, int64 ``(B, 9)``.

    Returns:
        uint8 ``(B, C, T, image_size, image_size)``.
    """
    top, left, height, width, tall, wide, down, across, mirrored = windows.unbind(1)
    rows, row_unit = _filter(top, height, tall, down, frames.shape[2], image_size)
    columns, column_unit = _filter(left, width, wide, across, frames.shape[3], image_size)
    columns = torch.where(mirrored[:, None, None] == 1, columns.flip(1), columns)
    pieces = (part.split(_AS_FLOATS) for part in (frames, columns, column_unit, rows, row_unit))
    parts = []
    for some, across_to, across_unit, down_to, down_unit in zip(*pieces, strict=True):
        narrow = _rounded(torch.einsum("bthwc,bxw->bcthx", some.float(), across_to), across_unit)
        parts.append(_rounded(torch.einsum("bcthx,byh->bctyx", narrow, down_to), down_unit).to(torch.uint8))
    return torch.cat(parts)


def _rounded(sums: Tensor, unit: Tensor) -> Tensor:
    """Weighted sums to whole numbers up to 255, as Pillow rounds after each of the two passes."""
    return sums.div_(unit[:, None, None, None, None]).add_(0.5).floor_().clamp_(max=255)


def _filter(
    start: Tensor, length: Tensor, resized: Tensor, skipped: Tensor, side: int, image_size: int
) -> tuple[Tensor, Tensor]:
    """Pillow's antialiased bilinear filter along one side of the frames.

    Args:
        start, length: the pixels that are resized, ``(B,)``.
        resized: to how many, ``(B,)``.
        skipped: how many of these come before the first of the result, ``(B,)``.
        side: pixels of the padded frames.

    Returns:
        float32 ``(B, image_size, side)``, which hold whole numbers, and ``(B,)``, the power of two that stands for 1.
    """
    start, length, resized, skipped = (value[:, None, None] for value in (start, length, resized, skipped))
    # The first pixel of the resized side may have the largest weight, which determines the precision.
    place = torch.arange(-1, image_size, device=start.device)[:, None]
    place = torch.where(place < 0, 0, place + skipped)
    pixel = torch.arange(side, device=start.device) - start
    scale = length.double() / resized  # pixels of the frame for each of the result
    away = (pixel + 0.5 - (place + 0.5) * scale).abs() / scale.clamp_min(1)
    weights = (1 - away).clamp_min(0).masked_fill((pixel < 0) | (pixel >= length), 0)
    weights = weights / weights.sum(dim=2, keepdim=True)
    # As many bits as 16-bit integers leave: torch's compute_index_ranges_int16_weights, after Pillow.
    bits = (32767.5 / weights.amax(dim=(1, 2))).log2().floor().clamp_max(22).long()
    unit = torch.ones_like(bits) << bits
    return (weights[:, 1:] * unit[:, None, None] + 0.5).floor().float(), unit.float()
