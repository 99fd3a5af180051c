"""Check that a Windows Media file (ASF specification 1.2) is complete, packet by packet and payload by payload."""

import struct
from typing import BinaryIO, NamedTuple

from adatosk.video.streams import damaged, read

HEAD = 4096  # bytes in which a file states its length
_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_WIDTHS = (0, 1, 2, 4)  # bytes of a field, by its two bits
_CORRECTED = b"\x82\0\0"  # a packet begins with these or, without error correction, with its flags


class _Payload(NamedTuple):
    """A part of an object, such as a frame, or the whole of it: ``size`` bytes in all, ``length`` of them here."""

    stream: int
    number: int
    numbers: int
    start: int
    length: int
    size: int

    def follows(self, before: "_Payload") -> bool:
        """Whether nothing of the stream is missing between the two."""
        if before.whole:
            return self.start == 0 and self.number == (before.number + 1) % self.numbers
        return (self.number, self.start) == (before.number, before.start + before.length)

    @property
    def whole(self) -> bool:
        """Whether its object ends with it."""
        return self.start + self.length == self.size


def properties(head: bytes) -> tuple[int, int, int]:
    """Size of the file, number of packets and size of a packet; zeros if unknown, as in a stream."""
    place = head.find(_PROPERTIES)
    if place < 0 or place + 100 > len(head):
        return 0, 0, 0
    size, _, count = struct.unpack_from("<QQQ", head, place + 40)
    flags, least, most = struct.unpack_from("<III", head, place + 88)
    if flags & 1 or size >= 2**53:
        return 0, 0, 0
    return size, count, most if least == most else 0


def follow_asf(file: BinaryIO, end: int) -> str:
    """Packets of one size; the objects of a stream are numbered, and each part says where it belongs (5.2)."""
    head = read(file, 0, HEAD)
    _, count, size = properties(head)
    start = int.from_bytes(head[16:24], "little")
    if not size or read(file, start, 16) != _DATA:
        return ""
    first = start + 50
    if count and first + count * size > end:
        return f"cut short: {max(0, end - first) // size} of {count} packets are there"
    last: dict[int, _Payload] = {}
    for place in range(first, first + count * size, size):
        try:
            payloads = _payloads(read(file, place, size))
        except (IndexError, ValueError):
            return damaged(place)
        for one in payloads:
            # The first part may belong to an object that began before the recording.
            if one.stream in last and not one.follows(last[one.stream]):
                return f"damaged: what stands before byte {place + size} is not all that its container numbers"
            last[one.stream] = one
    return "" if all(one.whole for one in last.values()) else "cut short: its last part is not whole"


def _payloads(packet: bytes) -> list[_Payload]:
    """The payloads of a packet; ``IndexError`` or ``ValueError`` if there is no sense in it."""
    place, found = 0, []

    def number(width: int) -> int:
        nonlocal place
        place += width
        if place > len(packet):
            raise IndexError
        return int.from_bytes(packet[place - width : place], "little")

    first = number(1)
    if first & 0x80:  # error correction
        if not packet.startswith(_CORRECTED):
            raise ValueError
        number(2)
        first = number(1)
    kinds = number(1)
    stated, _, padding = (number(_WIDTHS[first >> bit & 3]) for bit in (5, 1, 3))
    number(6)  # times
    end, several = (stated or len(packet)) - padding, number(1) if first & 1 else 1
    for _ in range(several & 63):
        stream = number(1) & 127
        which, start, more = (number(_WIDTHS[kinds >> bit & 3]) for bit in (4, 2, 0))
        size = number(min(more, 4))
        number(max(more - 4, 0))
        length = number(_WIDTHS[several >> 6]) if first & 1 else end - place
        if place + length > end or 1 < more < 8:
            raise ValueError
        numbers = 256 ** _WIDTHS[kinds >> 4 & 3]
        if more >= 8:
            found.append(_Payload(stream, which, numbers, start, length, size))
            place += length
        until = place + length
        while more == 1 and place < until:  # small objects, each behind its length
            found.append(_Payload(stream, which % numbers, numbers, 0, small := number(1), small))
            place, which = place + small, which + 1
    return found
