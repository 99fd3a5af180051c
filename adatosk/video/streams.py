"""Check that a file without a container is complete: a stream of coded units, frames of one size, or an animation."""

import re
import zlib
from typing import BinaryIO

_BLOCK = 1 << 20
_TAIL = 4096  # bytes in which a file's end mark lies
_HOLE = 256  # consecutive zeros that are not padding
_DV_SIZES = {0: 120_000, 0x80: 144_000}  # of a frame, with 525 and 625 lines
_SUBSAMPLED = {"420": (2, 2), "411": (4, 1), "422": (2, 1), "444": (1, 1)}  # colours across and down, in Y4M's names
_PICTURE = b"\0\0\1\0"
_DIRAC_HEAD, _DIRAC_END = 13, b"\x10"
_DELIMITER = b"\x12\0"  # of AV1's temporal units
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def read(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def checksum(data: bytes) -> int:
    """The CRC-32 of Ogg and NUT: zlib's with bit-reversed input and output, initialised to 0 and not inverted."""
    return int(f"{zlib.crc32(data.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF:032b}"[::-1], 2)


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


def follow_pictures(file: BinaryIO, end: int) -> str:
    """Bare MPEG-1 and MPEG-2: headers without a slice behind them are what is left of a picture."""
    tail = read(file, max(0, end - _BLOCK), _BLOCK)
    last = tail[max(tail.rfind(_PICTURE), 0) :]
    return (
        "" if re.search(rb"\x00\x00\x01[\x01-\xaf].", last, re.DOTALL) else "cut short: its last picture is not whole"
    )


def follow_jpegs(file: BinaryIO, end: int) -> str:
    """Bare Motion JPEG: behind the last end of an image, none begins."""
    tail = read(file, max(0, end - _BLOCK), _BLOCK)
    behind = tail[tail.rfind(b"\xff\xd9") + 2 :].lstrip(b"\0\r\n")
    return "cut short: its last image is not whole" if behind[:2] in (b"\xff", b"\xff\xd8") else ""


def follow_dirac(file: BinaryIO, end: int) -> str:
    """Dirac and VC-2: units that begin with BBCD, a code, and where the next one begins (specification, 9.6)."""
    place = 0
    while place < end:
        head = read(file, place, 9)
        if not b"BBCD".startswith(head[:4]):
            return damaged(place)
        size = int.from_bytes(head[5:9], "big")
        if not size and head[4:5] != _DIRAC_END:  # not stated
            return "" if len(head) == 9 else "cut short: its last unit is not whole"
        place += size or _DIRAC_HEAD
    return "cut short: its last unit is not whole" if place > end else ""


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


def follow_gif(file: BinaryIO, end: int) -> str:
    """A header, extensions (!) and images (,) in blocks that state their length, and a trailer (GIF89a)."""
    place = 13 + _gif_colours(read(file, 10, 1))
    while place < end:
        kind = read(file, place, 1)
        if kind == b";":
            return ""
        if kind == b"!":
            place += 2
        elif kind == b",":
            place += 11 + _gif_colours(read(file, place + 9, 1))
        else:
            return damaged(place)
        while size := read(file, place, 1).ljust(1, b"\0")[0]:
            place += 1 + size
        place += 1
    return "cut short: it has no end mark"


def _gif_colours(flags: bytes) -> int:
    """Size in bytes of the colour table that follows, or 0."""
    return 3 << (flags[0] & 7) + 1 if flags and flags[0] & 0x80 else 0


def follow_png(file: BinaryIO, end: int) -> str:
    """An animated PNG: its last chunk."""
    return "" if b"IEND" in read(file, max(0, end - _TAIL), _TAIL) else "cut short: it has no end mark"
