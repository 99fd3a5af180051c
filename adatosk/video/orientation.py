"""How pictures are turned and mirrored before they are shown, as a camera held otherwise stores them."""

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
# A display matrix that is nearer than this share to a quarter turn is one; FFmpeg lets a degree pass.
_SLACK = 0.0175


class Turn(NamedTuple):
    """First exchange rows and columns, then mirror."""

    exchange: bool = False
    left_right: bool = False
    up_down: bool = False


AS_STORED = Turn()


def upright(image: np.ndarray, turn: Turn) -> np.ndarray:
    """A view of ``(H, W, 3)`` as it is shown."""
    if turn.exchange:
        image = image.swapaxes(0, 1)
    return image[:: -1 if turn.up_down else 1, :: -1 if turn.left_right else 1]


def turn_of(frame: av.VideoFrame) -> Turn | None:
    """What a frame's display matrix asks for, one of eight; ``None`` of one that asks for another angle.

    The matrix's upper left part (a, b; c, d) takes (x, y) to (ax + cy, bx + dy), of any scale.
    """
    # PyAV's stub says that one looks up the data itself, not its type.
    matrix = frame.side_data.get(Type.DISPLAYMATRIX)  # pyrefly: ignore[no-matching-overload]
    if matrix is None:
        return AS_STORED
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))
    straight, crossed = max(abs(a), abs(d)), max(abs(b), abs(c))
    if min(straight, crossed) > _SLACK * max(straight, crossed):
        return None
    return Turn(True, c < 0, b < 0) if crossed > straight else Turn(False, a < 0, d < 0)
