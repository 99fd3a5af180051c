"""Augmentation of a clip: one draw for all of its frames, so that the face moves and not the crop."""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

# Sides of a crop as shares of the frame's shorter side (Wang et al., TSN, https://arxiv.org/abs/1608.00859; VideoMAE).
SCALES = (1.0, 0.875, 0.75, 0.66)

Transform = Callable[..., Tensor]


def train_transform(image_size: int, min_crop: float = 0.66, flip: bool = True) -> Transform:
    """``transform(video, generator) -> video``: multi-scale crop and horizontal flip, see :func:`augment`."""
    scales = tuple(scale for scale in SCALES if scale >= min_crop)
    if not scales:
        raise ValueError(f"min_crop={min_crop} leaves no crop scale: it must be at most 1")
    return partial(augment, image_size=image_size, scales=scales, flip=flip)


def eval_transform(image_size: int) -> Transform:
    """``transform(video, generator=None) -> video``: the shorter side to ``image_size``, then the central square."""
    return partial(resize_and_centre, image_size=image_size)


def augment(
    video: Tensor, generator: torch.Generator, image_size: int, scales: tuple[float, ...] = SCALES, flip: bool = True
) -> Tensor:
    """Crop at a random scale and position, resize, and mirror half of the clips.

    The crop's height and width are drawn among neighbouring ``scales`` of the frame's shorter side, as in TSN and
    VideoMAE, so its aspect ratio stays near 1; its position is drawn uniformly, whereas they draw one of 13 fixed ones.

    Args:
        video: uint8 ``(T, C, H, W)``.
        generator: the only source of randomness.
        image_size: side of the result in pixels.

    Returns:
        uint8 ``(T, C, image_size, image_size)``.
    """
    rows, columns = video.shape[-2:]
    first, second, down, across, mirror = torch.rand(5, generator=generator).tolist()
    tall = int(first * len(scales))
    near = scales[max(0, tall - 1) : tall + 2]
    wide = near[int(second * len(near))]
    height, width = (max(1, round(scale * min(rows, columns))) for scale in (scales[tall], wide))
    top, left = int(down * (rows - height + 1)), int(across * (columns - width + 1))
    video = _resize(video[..., top : top + height, left : left + width], image_size, image_size)
    return video.flip(-1) if flip and mirror < 0.5 else video


def resize_and_centre(video: Tensor, generator: torch.Generator | None = None, *, image_size: int) -> Tensor:
    """uint8 ``(T, C, H, W)`` to ``(T, C, image_size, image_size)``; deterministic."""
    rows, columns = video.shape[-2:]
    shorter = min(rows, columns)
    height, width = (int(image_size * side / shorter) for side in (rows, columns))
    top, left = (round((side - image_size) / 2) for side in (height, width))
    return _resize(video, height, width)[..., top : top + image_size, left : left + image_size]


def _resize(video: Tensor, height: int, width: int) -> Tensor:
    # Pillow's antialiased filter on bytes. torchvision calls the same function, but takes seconds to import.
    if video.shape[-2:] == (height, width):
        return video
    return F.interpolate(video, (height, width), mode="bilinear", antialias=True)
