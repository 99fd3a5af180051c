"""Check that a NUT file is complete (nut.txt of the format's authors): packets with checksums, and frames between."""

from typing import BinaryIO, NamedTuple

from adatosk.video.streams import checksum, damaged, read

_NAME = b"nut/multimedia container\0"
_MAIN = b"NMzV\x1f_\x04\xad"
_STARTS = {_MAIN, b"NS\x11@[\xf2\xf9\xdb", b"NK\xe4\xad\xee\xcaEi", b"NX\xddg/#\xe6N", b"NI\xabh\xb5\x96\xbax"}
# Flags of a frame: what its head gives besides them.
_TIME, _STREAM, _SIZE, _SUM, _RESERVED, _ELIDED, _MATCH, _CODED, _INVALID = (
    1 << bit for bit in (3, 4, 5, 6, 7, 10, 11, 12, 13)
)
_FRAME_HEAD = 128  # bytes that are enough for it


class _Code(NamedTuple):
    """What the first byte of a frame stands for; the rest of its head gives what its flags name."""

    flags: int
    stream: int
    factor: int
    size: int
    reserved: int
    elided: int


class _Numbers:
    """Numbers read one after the other: seven bits a byte, of which the eighth says whether another follows."""

    def __init__(self, data: bytes, place: int = 0) -> None:
        self.data, self.place = data, place

    def next(self) -> int:
        value, more = 0, True
        while more:
            more, value = self.data[self.place] & 0x80, value << 7 | self.data[self.place] & 0x7F
            self.place += 1
        return value


def follow_nut(file: BinaryIO, end: int) -> str:
    """From packet to frame to packet, each of which states its length."""
    codes, elided, streams, place = [], [0], 0, len(_NAME)
    while place < end:
        head = read(file, place, _FRAME_HEAD)
        try:
            if head[:1] != b"N":
                start, size = _frame(head, codes, elided, streams)
            elif head[:8] in _STARTS:
                numbers = _Numbers(head, 8)
                size = numbers.next()
                start = numbers.place + 4 * (size > 4096)
                if start > numbers.place and checksum(head[:start]):
                    return damaged(place)
                content = read(file, place + start, size)
                if len(content) == size and checksum(content):
                    return damaged(place)
                if head[:8] == _MAIN and len(content) == size:
                    codes, elided, streams = _main(content)
            else:
                return damaged(place)
        except (IndexError, ValueError):
            return damaged(place) if len(head) == _FRAME_HEAD else "cut short: its last frame is not whole"
        place += start + size
    return "cut short: its last frame is not whole" if place > end else ""


def _main(content: bytes) -> tuple[list[_Code], list[int], int]:
    """The frame codes, the lengths of the beginnings that frames leave out, and the number of streams."""
    numbers = _Numbers(content)
    if numbers.next() > 3:
        numbers.next()
    streams, _, bases = numbers.next(), numbers.next(), numbers.next()
    for _ in range(2 * bases):
        numbers.next()
    codes: list[_Code] = []
    # Time, factor, stream, size, reserved, count, match and what is left out: most stay until they are given anew.
    given = [0, 1, 0, 0, 0, 0, 0, 0]
    while len(codes) < 256:
        flags, fields = numbers.next(), numbers.next()
        given[3:5] = 0, 0
        values = [numbers.next() for _ in range(fields)]
        given[: min(fields, 8)] = values[:8]
        for number in range(given[5] if fields > 5 else given[1] - given[3]):
            if len(codes) == ord("N"):
                codes.append(_Code(_INVALID, 0, 0, 0, 0, 0))
            codes.append(_Code(flags, given[2], given[1], given[3] + number, given[4], given[7]))
    elided = [0]
    for _ in range(numbers.next()):
        elided.append(numbers.next())
        numbers.place += elided[-1]
    return codes, elided, streams


def _frame(head: bytes, codes: list[_Code], elided: list[int], streams: int) -> tuple[int, int]:
    """Size in bytes of a frame's head and of what follows; ``ValueError`` or ``IndexError`` if it is none."""
    code, numbers = codes[head[0]], _Numbers(head, 1)
    flags = code.flags ^ (numbers.next() if code.flags & _CODED else 0)
    if flags & _INVALID:
        raise ValueError
    stream = numbers.next() if flags & _STREAM else code.stream
    if flags & _TIME:
        numbers.next()
    size = code.size + code.factor * (numbers.next() if flags & _SIZE else 0)
    if flags & _MATCH:
        numbers.next()
    left_out = elided[numbers.next() if flags & _ELIDED else code.elided]
    for _ in range(numbers.next() if flags & _RESERVED else code.reserved):
        numbers.next()
    start = numbers.place + (4 if flags & _SUM else 0)
    if stream >= streams or size < left_out or (flags & _SUM and checksum(head[:start])):
        raise ValueError
    return start, size - left_out
