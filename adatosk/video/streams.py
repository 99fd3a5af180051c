"""Check that a file without a container is complete: a bare stream of coded units, or of frames of one size."""

import re
from typing import BinaryIO

_BLOCK = 1 << 20
_HOLE = 256  # consecutive zeros that are not padding
_DV_SIZES = {0: 120_000, 0x80: 144_000}  # of a frame, with 525 and 625 lines
_SUBSAMPLED = {"420": (2, 2), "411": (4, 1), "422": (2, 1), "444": (1, 1)}  # colours across and down, in Y4M's names
_DELIMITER = b"\x12\0"  # of AV1's temporal units


def read(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def only_zeros(file: BinaryIO, place: int) -> bool:
    """Whether nothing but padding follows."""
    file.seek(place)
    while block := file.read(_BLOCK):
        if block.strip(b"\0"):
            return False
    return True


def damaged(place: int) -> str:
    return f"damaged: what stands at byte {place} is no part of its container"


def follow_units(file: BinaryIO, end: int) -> str:
    """Raw H.264 and HEVC: no unit contains three zeros (7.4.1), and there are never many between two units."""
    place = 0
    while block := read(file, place, _BLOCK):
        hole = block.find(bytes(_HOLE))
        if hole >= 0:
            return "" if only_zeros(file, place + hole) else damaged(place + hole)
        place += max(1, len(block) - _HOLE)
    return ""


def follow_y4m(file: BinaryIO, end: int) -> str:
    """YUV4MPEG2: a line with size and colours, then for each frame a line and its bytes."""
    head = read(file, 0, 256).partition(b"\n")[0]
    size, place = _y4m_bytes(head.decode("latin-1")), len(head) + 1
    while size and place < end:
        line = read(file, place, 256).partition(b"\n")[0]
        if not line.startswith(b"FRAME"[: end - place]):
            return damaged(place)
        place += len(line) + 1 + size
    return "cut short: its last frame is not whole" if size and place > end else ""


def _y4m_bytes(head: str) -> int:
    """Size in bytes of a frame; 0 for unknown colours."""
    width, height = (int("0" + "".join(re.findall(rf" {side}(\d+)", head)[:1])) for side in "WH")
    colours = "".join(re.findall(r" C(\w+)", head)[:1]) or "420"
    across, down = _SUBSAMPLED.get(colours[:3], (0, 0))
    if across:
        samples = width * height * (2 if "alpha" in colours else 1) + 2 * (-(-width // across)) * (-(-height // down))
    else:
        samples = width * height if colours.startswith("mono") else 0
    return samples * (2 if re.search(r"(p|mono)(9|1\d)$", colours) else 1)


def follow_dv(file: BinaryIO, end: int) -> str:
    """Digital video: frames of one size, which the fourth byte tells."""
    size = _DV_SIZES[read(file, 0, 4)[3] & 0x80]
    return f"cut short: its last frame of {size} bytes is not whole" if end % size else ""


def follow_obu(file: BinaryIO, end: int) -> str:
    """AV1: units that state their length (specification, 5.3); those of its annex B are not followed."""
    place = 0
    while place < end and read(file, 0, 2) == _DELIMITER:
        head = read(file, place, 10)
        if head[0] & 0x83 != 2:  # each states its length here, and two bits are 0
            return damaged(place)
        length, start = 0, 1 + (head[0] >> 2 & 1)
        for shift, byte in enumerate(head[start:]):
            length |= (byte & 0x7F) << 7 * shift
            if byte < 0x80:
                place += start + shift + 1 + length
                break
        else:
            return "cut short: its last unit is not whole"
    return "cut short: its last unit is not whole" if place > end else ""
