"""What a video container says about itself that the decoders do not pass on."""

import struct
from pathlib import Path

HEAD = 4096  # bytes in which a file says how long it is


def stated_bytes(path: Path) -> int:
    """Bytes that a Matroska, WebM or Flash file says it has; 0 where it does not, as one that was streamed."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[:4] == b"\x1aE\xdf\xa3":
        return _segment_end(head)
    name = b"\x00\x08filesize\x00"  # length and text of the key, and the type of its value: a double
    if head[:3] != b"FLV" or name not in head[:-8]:
        return 0
    (size,) = struct.unpack_from(">d", head, head.index(name) + len(name))
    return int(size) if 0 < size < 2**53 else 0  # so that no damage, such as an infinite size, is believed


def _segment_end(head: bytes) -> int:
    """Matroska is a header and one segment, each with an id of 4 bytes and its length before it (RFC 8794, 4)."""
    if len(head) < 64:
        return 0
    size, start = _length(head, 4)
    segment = start + size
    if head[segment : segment + 4] != b"\x18S\x80g" or segment + 12 > len(head):
        return 0
    size, start = _length(head, segment + 4)
    return start + size if size else 0


def _length(data: bytes, place: int) -> tuple[int, int]:
    """A length in 1 to 8 bytes, 0 for the one that means unknown, and the place behind it."""
    count = 9 - data[place].bit_length()
    ones = (1 << 7 * count) - 1
    size = int.from_bytes(data[place : place + count], "big") & ones
    return size if size != ones else 0, place + count
