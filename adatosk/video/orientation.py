"""Rotation and mirroring of images for display, as a rotated camera stores them."""

import struct
from typing import NamedTuple

import av
import numpy as np
from av.sidedata.sidedata import Type

# EXIF's orientations 1 to 8: are rows and columns exchanged, and is the result mirrored left-right, or up-down?
EXIF_TURNS = (
    (False, False, False),
    (False, True, False),
    (False, True, True),
    (False, False, True),
    (True, False, False),
    (True, True, False),
    (True, True, True),
    (True, False, True),
)
# A display matrix within this relative tolerance of a quarter turn counts as one; FFmpeg tolerates one degree.
_SLACK = 0.0175


class Turn(NamedTuple):
    """Transpose first, then mirror."""

    exchange: bool = False
    left_right: bool = False
    up_down: bool = False


AS_STORED = Turn()
_NO_FRAME = av.VideoFrame(2, 2, "gray")


def upright(image: np.ndarray, turn: Turn) -> np.ndarray:
    """A view of ``(H, W, 3)`` in display orientation."""
    if turn.exchange:
        image = image.swapaxes(0, 1)
    return image[:: -1 if turn.up_down else 1, :: -1 if turn.left_right else 1]


def turn_of(frame: av.VideoFrame) -> Turn | None:
    """The orientation in a frame's display matrix, one of eight; ``None`` for any other angle.

    The matrix's upper left part (a, b; c, d) maps (x, y) to (ax + cy, bx + dy), at any scale.
    """
    data = frame.side_data
    # PyAV's stub says that one looks up the data itself, not its type.
    matrix = data.get(Type.DISPLAYMATRIX)  # pyrefly: ignore[no-matching-overload]
    found = None if matrix is None else bytes(matrix)
    # A frame and its side data refer to each other: without this, the frame's memory, 50 MB at 8K, would be released
    # no sooner than by Python's garbage collector, which counts objects, not bytes.
    data.__init__(_NO_FRAME)  # pyrefly: ignore[bad-argument-type]
    if found is None:
        return AS_STORED
    a, b, _, c, d = struct.unpack_from("=5i", found)
    straight, crossed = max(abs(a), abs(d)), max(abs(b), abs(c))
    if min(straight, crossed) > _SLACK * max(straight, crossed):
        return None
    return Turn(True, c < 0, b < 0) if crossed > straight else Turn(False, a < 0, d < 0)
