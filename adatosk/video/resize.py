"""Central squares of frames at a model's size, a few at a time."""

from collections.abc import Iterable

import cv2
import numpy as np

# From this ratio on, frames are resized by area, as in the recorded runs (1.8 and more). Below it, by Pillow's filter,
# which the field's loaders use, also covers every pixel, and takes a fifth of the time.
AREA_FROM = 1.75
# Number of images held and resized at once: each call has its overhead, and a long clip at full size would exhaust the
# memory.
TOGETHER = 16
# Frames of videos are grouped up to this many bytes.
TOGETHER_BYTES = 8 << 20


def stack(images: Iterable[np.ndarray], count: int, size: int | None) -> np.ndarray:
    """Apply :func:`fit` to ``count`` streamed images ``(H, W, 3)`` of one shape, using each before the next is taken.

    Returns:
        uint8 ``(count, size, size, 3)``, or ``(count, H, W, 3)`` without a size.
    """
    out, held, together, place = np.empty(0), np.empty(0), 0, -1
    for image in images:  # not by enumerate, which would hold an image while the next one is decoded
        place += 1
        if not place:
            out = np.empty((count, *(image.shape[:2] if size is None else (size, size)), 3), np.uint8)
            side = min(image.shape[:2])
            # Only the bilinear filter is faster with several images at once.
            filtered = size is not None and side != size and side < AREA_FROM * size
            together = max(1, min(count, TOGETHER_BYTES // (3 * side**2))) if filtered else 1
            held = np.empty((together, side, side, 3), np.uint8) if together > 1 else held
        if together == 1:
            fit(image[None], size, out[place : place + 1])
            del image
            continue
        held[place % together] = _central_square(image[None])[0]
        del image
        if (place + 1) % together == 0 or place + 1 == count:
            start = place - place % together
            fit(held[: place + 1 - start], size, out[start : place + 1])
    return out


def fit(images: np.ndarray, size: int | None, out: np.ndarray | None = None) -> np.ndarray:
    """Central squares of ``(N, H, W, 3)``, uint8, resized to ``size``; ``None`` keeps images unchanged.

    Resizing is by area from ``AREA_FROM`` on, otherwise by Pillow's antialiased bilinear filter. The result is written
    to ``out`` if given.
    """
    if size is None:
        squares = images
    elif size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    else:
        squares = _central_square(images)
    side = squares.shape[1]
    if size is None or side == size:
        small = np.ascontiguousarray(squares) if out is None else squares
    elif side < AREA_FROM * size:
        small = _bilinear(squares, size)
    else:
        small = np.empty((len(images), size, size, 3), np.uint8) if out is None else out
        for image, target in zip(squares, small, strict=True):
            cv2.resize(image, (size, size), dst=target, interpolation=cv2.INTER_AREA)
    if out is None or small is out:
        return small
    out[:] = small
    return out


def _central_square(images: np.ndarray) -> np.ndarray:
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return images[:, top : top + side, left : left + side]


def _bilinear(squares: np.ndarray, size: int) -> np.ndarray:
    # torch has Pillow's filter for bytes in this memory layout, at a seventh of Pillow's time. It is imported here
    # because that takes seconds, and most clips need no filter.
    import torch
    import torch.nn.functional as F

    channels_last = torch.from_numpy(np.ascontiguousarray(squares)).permute(0, 3, 1, 2)
    return F.interpolate(channels_last, (size, size), mode="bilinear", antialias=True).permute(0, 2, 3, 1).numpy()
