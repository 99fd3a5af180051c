"""Check that a file is complete, by what its container says about itself and FFmpeg does not report.

FFmpeg silently skips holes and stops where a file is truncated, as a player should. Here the container's own units
(tags, pages, elements, boxes, packets) are followed from the first to the last: each states where the next one begins.

What a file itself does not show remains unknown:

- Bare streams (H.264, HEVC, AV1, MPEG-1/2/4, H.263, Dirac, Motion JPEG), DV, NUT, GXF, transport streams (TS, MTS) and
  fragmented MP4 have neither a count nor an end: truncated between two pictures (in MP4, fragments), they are complete
  and shorter. Truncated inside one, they are refused; inside its first few bytes, not always.
- A few changed bytes inside a picture may decode to another picture. They are always found where there are checksums:
  in Ogg, PNG and APNG, Matroska by FFmpeg, HEVC with picture hashes; nearly always in VP9 and AV1; often in H.264 and
  MPEG; rarely in JPEG, VP8, HEVC without hashes, Windows Media, GIF and ProRes, and never in uncompressed video.
- A hole that takes whole pictures and no part of another is a gap in time, as a camera leaves it, too: in bare streams,
  NUT, GIF, MPEG program streams and, if it takes a multiple of 16 packets, transport streams. So is a picture whose
  head is destroyed, or its packet's in GIF and MPEG, or its entry in an MP4's index or fragment.
"""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from adatosk.video.asf import HEAD, follow_asf, properties
from adatosk.video.mpeg import follow_program, follow_transport
from adatosk.video.nut import follow_nut
from adatosk.video.streams import (
    checksum,
    damaged,
    follow_dirac,
    follow_dv,
    follow_gif,
    follow_jpegs,
    follow_obu,
    follow_pictures,
    follow_png,
    follow_units,
    follow_y4m,
    only_zeros,
    read,
)

_FLV_TAGS = (8, 9, 18)  # sound, picture, script

# Matroska's elements on the level of the segment and inside a cluster (RFC 9559), CRC-32 and Void in both.
_SEGMENT, _CLUSTER = b"\x18S\x80g", b"\x1fC\xb6u"
_IN_SEGMENT = {_CLUSTER, b"\x11M\x9bt", b"\x15I\xa9f", b"\x16T\xaek", b"\x1cS\xbbk", b"\x19A\xa4i", b"\x10C\xa7p"}
_IN_SEGMENT |= {b"\x12T\xc3g", b"\xec", b"\xbf"}
_IN_CLUSTER = {b"\xe7", b"\xa7", b"\xab", b"\xa3", b"\xa0", b"\xaf", b"\x58T", b"\xec", b"\xbf"}

_RM_ONE_RATE = b"\3"  # the largest group of packets of a stream with one rate

_MXF = b"\x06\x0e+4"


def fault(path: Path, container: str) -> str:
    """What a file lacks or where it is damaged, as the end of a sentence; empty if no fault is found.

    Args:
        container: FFmpeg's name of the format, such as ``matroska,webm``.
    """
    there, whole = path.stat().st_size, stated_bytes(path)
    if there < whole:
        return f"cut short: {there} of {whole} bytes are there"
    follow = _FOLLOW.get(container)
    if follow is None:
        return ""
    with path.open("rb") as file:
        return follow(file, min(whole or there, there))


def stated_bytes(path: Path) -> int:
    """Size in bytes that a Matroska, WebM, Flash (FLV, SWF) or Windows Media file states; 0 if it does not."""
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head[:4] == b"\x1aE\xdf\xa3":
        return _segment(head)[1]
    if head[:4] == b"0&\xb2u":
        return properties(head)[0]
    if head[:3] == b"FWS":
        return int.from_bytes(head[4:8], "little")
    name = b"\x00\x08filesize\x00"  # length and text of the key, and the type of its value: a double
    if head[:3] != b"FLV" or name not in head[:-8]:
        return 0
    (size,) = struct.unpack_from(">d", head, head.index(name) + len(name))
    return int(size) if 0 < size < 2**53 else 0  # so that no damage, such as an infinite size, is believed


def null_frames(path: Path) -> int:
    """Number of empty video chunks of an AVI file: they repeat the previous frame, and FFmpeg returns no packet."""
    with path.open("rb") as file:
        end, place, count = path.stat().st_size, 12, 0
        while place + 8 <= end:
            kind, size = read(file, place, 4), _number(file, place + 4)
            if kind == b"LIST" and read(file, place + 8, 4) in (b"movi", b"rec "):
                place += 12  # go inside
                continue
            if kind == b"RIFF":
                place += 12
                continue
            count += size == 0 and kind[2:] in (b"dc", b"db")
            place += 8 + size + size % 2
    return count


def _number(file: BinaryIO, place: int) -> int:
    return int.from_bytes(read(file, place, 4), "little")


def _follow_matroska(file: BinaryIO, end: int) -> str:
    place, stated = _segment(read(file, 0, HEAD))
    end = min(stated or end, end)
    while place and place < end:
        head = read(file, place, 12).ljust(24, b"\0")
        width = 9 - head[0].bit_length()
        name = head[:width]
        if name not in _IN_SEGMENT | _IN_CLUSTER or not head[width]:
            return "" if not stated and only_zeros(file, place) else damaged(place)
        size, start = _length(head, width)
        if name == _CLUSTER and place + start + size <= end and not _right_sum(file, place + start, size):
            return f"damaged: the checksum of the part at byte {place} is another one"
        # Skip only the head of a cluster, because its contents are checked next.
        place += start if name == _CLUSTER else start + size
    return "cut short: its last part is not whole" if place > end else ""


def _right_sum(file: BinaryIO, place: int, size: int) -> bool:
    """Whether an element of Matroska that begins with a CRC-32, as FFmpeg writes them, has this checksum."""
    head = read(file, place, 6)
    if not size or head[:2] != b"\xbf\x84":
        return True
    found, left = 0, size - len(head)
    while left and (block := file.read(min(left, 1 << 20))):
        found, left = zlib.crc32(block, found), left - len(block)
    return found == int.from_bytes(head[2:], "little")


def _follow_flash(file: BinaryIO, end: int) -> str:
    place = int.from_bytes(read(file, 5, 4), "big") + 4
    while place + 11 <= end:
        head = read(file, place, 11)
        size = 11 + int.from_bytes(head[1:4], "big")
        if head[0] & 31 not in _FLV_TAGS:
            return "" if only_zeros(file, place) else damaged(place)
        if place + size > end:
            return "cut short: its last part is not whole"
        behind = read(file, place + size, 4)
        # Some writers set the length after a tag to 0, or omit it after the last one.
        if len(behind) == 4 and int.from_bytes(behind, "big") not in (size, size - 11, 0):
            return damaged(place + size)
        place += size + 4
    return ""


def _follow_ogg(file: BinaryIO, end: int) -> str:
    place, expected, ended = 0, {}, {}
    while place < end:
        head = read(file, place, 27)
        if head[:4] != b"OggS" or len(head) < 27:
            return damaged(place) if len(head) == 27 else "cut short: its last page is not whole"
        table = file.read(head[26])
        page = head + table + file.read(sum(table))
        if len(page) < 27 + head[26] + sum(table):
            return "cut short: its last page is not whole"
        stream, number = struct.unpack_from("<II", head, 14)
        if expected.get(stream, number) != number or _ogg_sum(page) != struct.unpack_from("<I", head, 22)[0]:
            return damaged(place)
        expected[stream], ended[stream] = number + 1, bool(head[5] & 4)
        place += len(page)
    return "" if all(ended.values()) else "cut short: a stream has no last page"


def _ogg_sum(page: bytes) -> int:
    return checksum(page[:22] + bytes(4) + page[26:])


def _follow_boxes(file: BinaryIO, end: int) -> str:
    """MP4 and related formats: a sequence of boxes; what the index lists is checked by counting frames."""
    place, fragmented = 0, False
    while place + 8 <= end:
        head = read(file, place, 16)
        size, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if size == 1:
            size = int.from_bytes(head[8:], "big")
        fragmented |= kind == b"moof"
        if size < 8:  # 0 is the last box or, as bytes below 8, padding
            return damaged(place) if fragmented and kind == bytes(4) else ""
        if place + size > end:
            return f"cut short: {end - place} of {size} bytes of its last part are there" if fragmented else ""
        place += size
    return "cut short: its last part is not whole" if fragmented and not only_zeros(file, place) else ""


def _follow_real(file: BinaryIO, end: int) -> str:
    """RealMedia: parts that state their length, one of which states its number of packets, which state theirs.

    The length of that one is not relied on: FFmpeg states 10 bytes more than it writes. A packet of another version or
    stream than there is would be passed over, or of another group, where a stream has several rates.
    """
    place, count, version, streams, most = 0, 0, b"", set(), _RM_ONE_RATE
    while not count:
        head = read(file, place, 14)
        size = int.from_bytes(head[4:8], "big")
        if size < 8 or len(head) < 14:
            return ""
        count = int.from_bytes(head[10:14], "big") if head[:4] == b"DATA" else 0
        if head[:4] == b"MDPR":
            streams.add(head[10:12])
            most = b"\xff" if b"MLTI" in read(file, place, size) else most
        place += 18 if count else size
    for number in range(count):
        head = read(file, place, 12)
        size, version = int.from_bytes(head[2:4], "big"), version or head[:2]
        place += size
        if not size or place > end:
            return f"cut short: {number} of {count} packets are there"
        if head[:2] != version or head[4:6] not in streams or (version == b"\0\0" and head[10:11] > most):
            return damaged(place - size)
    return ""


def _follow_mxf(file: BinaryIO, end: int) -> str:
    """Keys of 16 bytes, each with the length of what follows (SMPTE 377-1); a footer partition, if the first names it.

    A file may begin with a run-in; it is not followed.
    """
    head = read(file, 0, 64)
    if head[:4] != _MXF or len(head) < 64:
        return ""
    place, (footer,) = 0, struct.unpack_from(">Q", head, 16 + _ber(head, 16)[1] + 24)
    while place < end:
        key = read(file, place, 25)
        size, width = _ber(key, 16)
        if key[:4] != _MXF or not width:
            return damaged(place)
        place += 16 + width + size
    return "cut short: its last part is not whole" if place > end or footer >= end else ""


def _ber(data: bytes, place: int) -> tuple[int, int]:
    """A length and the number of bytes that it takes, 0 if it is none."""
    first = data[place] if place < len(data) else 0xFF
    if first < 0x80:
        return first, 1
    width = 1 + (first & 0x7F)
    return (int.from_bytes(data[place + 1 : place + width], "big"), width) if width <= 9 else (0, 0)


_FOLLOW: dict[str, Callable[[BinaryIO, int], str]] = {
    "matroska,webm": _follow_matroska,
    "flv": _follow_flash,
    "ogg": _follow_ogg,
    "mpegts": follow_transport,
    "mpeg": follow_program,
    "asf": follow_asf,
    "mov,mp4,m4a,3gp,3g2,mj2": _follow_boxes,
    "gif": follow_gif,
    "h264": follow_units,
    "hevc": follow_units,
    "yuv4mpegpipe": follow_y4m,
    "dv": follow_dv,
    "obu": follow_obu,
    "mxf": _follow_mxf,
    "nut": follow_nut,
    "apng": follow_png,
    "rm": _follow_real,
    "mpegvideo": follow_pictures,
    "mjpeg": follow_jpegs,
    "dirac": follow_dirac,
}


def _segment(head: bytes) -> tuple[int, int]:
    """Where Matroska's segment begins and ends; zeros if unknown.

    A file is a header and one segment, each preceded by a 4-byte id and its length (RFC 8794, 4).
    """
    if len(head) < 64:
        return 0, 0
    size, start = _length(head, 4)
    segment = start + size
    if head[segment : segment + 4] != _SEGMENT or segment + 12 > len(head):
        return 0, 0
    size, start = _length(head, segment + 4)
    return start, start + size if size else 0


def _length(data: bytes, place: int) -> tuple[int, int]:
    """A length of 1 to 8 bytes, 0 for the value that means unknown, and the position after it."""
    count = 9 - data[place].bit_length()
    ones = (1 << 7 * count) - 1
    size = int.from_bytes(data[place : place + count], "big") & ones
    return size if size != ones else 0, place + count
