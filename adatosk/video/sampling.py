"""Which frames of a clip a model sees."""

import numpy as np


def frame_indices(length: int, frames: int = 16, stride: int = 4, start: int | None = None) -> np.ndarray:
    """Indices of the sampled frames of a clip: ``start + stride · i`` for i = 0 … frames-1.

    They span ``(frames-1)·stride + 1`` frames. In a shorter clip, they are spread evenly over the whole clip, from its
    first frame to its last: i·(length-1)/(frames-1), rounded half up. This is the largest (real-valued) stride that
    fits; in a clip of fewer than ``frames`` frames, it repeats frames evenly in time, rather than only one of them.

    Args:
        length: number of frames in the clip, at least 1.
        frames, stride: at least 1.
        start: index of the first frame; ``None`` centres the span.

    Returns:
        int64 ``(frames,)``, non-decreasing, in [0, length-1].

    Raises:
        ValueError: a number is below 1, or the span from ``start`` exceeds the clip.
    """
    for name, value in (("length", length), ("frames", frames), ("stride", stride)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    latest = last_start(length, frames, stride)
    if start is not None and not 0 <= start <= latest:
        raise ValueError(
            f"start={start}: {frames} frames at stride {stride} of a clip of {length} frames can start at 0 to {latest}"
        )
    steps = np.arange(frames, dtype=np.int64)
    if length < (frames - 1) * stride + 1:
        # Integer arithmetic, so that rounding is exact.
        return (2 * steps * (length - 1) + frames - 1) // (2 * (frames - 1))
    return (latest // 2 if start is None else start) + stride * steps


def last_start(length: int, frames: int, stride: int) -> int:
    """The largest ``start`` that :func:`frame_indices` accepts; 0 for a clip shorter than the span."""
    return max(0, length - ((frames - 1) * stride + 1))
