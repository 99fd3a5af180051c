"""Inspection of each packet's first bytes: is it intact, is it a frame, and may decoding start at it?

Nothing is decoded; a packet takes about a microsecond.
"""

from collections.abc import Callable
from functools import cache

import av

# NAL unit types of IDR pictures, after which nothing refers to earlier pictures.
_H264_IDR, _HEVC_IDR = {5}, {19, 20}
_H264_PICTURES, _HEVC_PICTURES = range(1, 6), range(32)
_H264_SPS, _HEVC_SPS = 7, 33
# All parameter sets, without which no picture is decoded.
_H264_SETS, _HEVC_SETS = {7, 8}, {32, 33, 34}
# Those, delimiters, ends, fillers and messages, which may stand in a packet of their own.
_H264_BESIDE, _HEVC_BESIDE = set(range(6, 14)), set(range(32, 41))
_H264_SLICE, _H264_DELIMITER = 1, 9
# Profiles whose parameter sets describe the colours (H.264, 7.3.2.1.1).
_H264_HIGH = {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}

_BEHIND = b"\x55" * 64

OPEN = "an open group of pictures"
NO_PICTURE = "a packet without a picture"
# What no program writes: such a packet was a frame.
TORN = "a packet is no row of NAL units", "a packet has a hole", "a packet with units of unknown kinds alone"

# Maps a packet, and whether it is marked as a keyframe, to what is unusual about it, or an empty string.
Look = Callable[[bytes, bool], str]


def look_for(codec: str, extradata: bytes | None) -> Look | None:
    """The inspection of a codec's packets; ``None`` if their first bytes are not informative, or in another form.

    Args:
        codec: FFmpeg's name of the codec.
        extradata: the stream's extradata, which for H.264 and HEVC states the size of a unit's length field.
    """
    if codec in ("h264", "hevc"):
        width = _width(codec, extradata)
        return _units(codec, width, extradata or b"") if width else None
    return {"vp8": _vp8, "vp9": _vp9, "flv1": _flv1, "mjpeg": _mjpeg}.get(codec)


def _width(codec: str, extradata: bytes | None) -> int:
    """Bytes of the length before each unit of H.264 or HEVC; 0 for units between start codes, as in a stream."""
    place = 4 if codec == "h264" else 21
    return (extradata[place] & 3) + 1 if extradata and extradata[0] == 1 and len(extradata) > place else 0


def _units(codec: str, width: int, extradata: bytes) -> Look:
    """H.264 or HEVC: units, each preceded by its length in ``width`` bytes, must fill the packet exactly."""
    h264 = codec == "h264"
    pictures, idr, sps = (_H264_PICTURES, _H264_IDR, _H264_SPS) if h264 else (_HEVC_PICTURES, _HEVC_IDR, _HEVC_SPS)
    needed, beside = (_H264_SETS, _H264_BESIDE) if h264 else (_HEVC_SETS, _HEVC_BESIDE)
    sets: set[bytes] = set()
    others = False

    def look(packet: bytes, keyframe: bool) -> str:
        """Follow the units of a packet to its end, and keep its parameter sets."""
        nonlocal others
        place, kinds, relies = 0, set(), others
        while place < len(packet):
            start = place + width
            place = start + int.from_bytes(packet[place:start], "big")
            if not start < place <= len(packet) or packet[start] & 0x80:
                return TORN[0]
            # A unit cannot contain three consecutive zeros: a 3 is inserted between them (H.264, 7.4.1).
            if packet.find(b"\0\0\0", start, place) >= 0:
                return TORN[1]
            kind = packet[start] & 31 if h264 else packet[start] >> 1 & 63
            kinds.add(kind)
            if kind == sps:
                sets.add(packet[start:place])
            if kind in needed:
                others |= packet[start:place] not in extradata
        shown = kinds.intersection(pictures)
        if not shown:
            return NO_PICTURE if kinds <= beside else TORN[2]
        if len(sets) > 1:
            return "its pictures change their kind"
        if keyframe and relies and not needed <= kinds:
            return "a keyframe that relies on parameter sets between the pictures before it"
        return OPEN if keyframe and not shown <= idr else ""

    return look


def is_left_alone(packet: bytes, following: bytes, extradata: bytes | None) -> bool:
    """Whether no picture refers to that of an H.264 packet, which `look_for` finds usual.

    Its slices say so (7.4.1), and so does the number of the picture that follows it in the order of decoding, which
    counts the references before it (7.4.3): where a bit is wrong, the two disagree.

    Args:
        following: the next packet; empty behind the last one.
        extradata: the stream's extradata.
    """
    place, width, digits = 0, _width("h264", extradata), _number_bits(extradata)
    while digits and place < len(packet):
        start = place + width
        # Bits 5 and 6 of a reference are not both 0; a unit of another kind may change how later pictures are decoded.
        if packet[start] not in (_H264_SLICE, _H264_DELIMITER):
            return False
        place = start + int.from_bytes(packet[place:start], "big")
    if not digits or not following:
        return bool(digits)
    after = _picture_number(following, width, digits)
    return after is None or after == _picture_number(packet, width, digits)


def _picture_number(packet: bytes, width: int, digits: int) -> int | None:
    """``frame_num`` of an H.264 packet's first slice (7.3.3); ``None`` of an IDR picture, which begins anew."""
    place = 0
    while place < len(packet):
        start = place + width
        place = start + int.from_bytes(packet[place:start], "big")
        kind = packet[start] & 31
        if kind in _H264_PICTURES:
            bits = _Bits(packet[start + 1 : min(place, start + 16)])
            bits.skip_numbers(3)  # the first macroblock, the type of the slice, the parameter set
            return None if kind in _H264_IDR else bits.take(digits)
    return -1


@cache
def _number_bits(extradata: bytes | None) -> int:
    """How many bits ``frame_num`` takes (7.3.2.1.1), by the first parameter set; 0 if it does not tell."""
    if not extradata or not _width("h264", extradata) or len(extradata) < 12:
        return 0
    bits = _Bits(extradata[12 : 8 + int.from_bytes(extradata[6:8], "big")])
    bits.skip_numbers(1)
    if extradata[9] in _H264_HIGH:
        colours = bits.number()
        if colours == 3 and bits.take(1):
            return 0  # three pictures in one
        bits.skip_numbers(2)
        bits.take(1)
        if bits.take(1):
            return 0  # matrices of its own
    return 4 + bits.number()


class _Bits:
    """The bits of a unit, without the bytes that are inserted into it (H.264, 7.4.1); zeros behind its end."""

    def __init__(self, unit: bytes):
        data = unit.replace(b"\0\0\3", b"\0\0") + bytes(8)
        self._bits, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        self._left = max(0, self._left - count)
        return self._bits >> self._left & (1 << count) - 1

    def number(self) -> int:
        """An Exp-Golomb code (9.1)."""
        zeros = self._left - (self._bits & (1 << self._left) - 1).bit_length()
        return self.take(2 * zeros + 1) - 1

    def skip_numbers(self, count: int) -> None:
        for _ in range(count):
            self.number()


def continued(packet: av.Packet) -> av.Packet | None:
    """The last packet of a bare HEVC stream, with other bytes behind the end of its last picture.

    FFmpeg silently decodes what stands behind the end of a cut picture, but nothing behind that of a whole one, so
    that the frames differ if the picture is cut.

    Returns:
        the packet itself if other units follow its picture; ``None`` if it has none, because it is cut before it.
    """
    data = bytes(packet)
    pictures = [unit[0] >> 1 & 63 in _HEVC_PICTURES for unit in data.split(b"\0\0\1")[1:] if unit]
    if not any(pictures):
        return None
    if not pictures[-1]:
        return packet
    longer = av.Packet(data + _BEHIND)
    longer.pts, longer.dts, longer.time_base, longer.stream = packet.pts, packet.dts, packet.time_base, packet.stream
    return longer


def is_between(packet: bytes) -> bool:
    """Whether a packet of MPEG-4 is a picture that refers to one before and one behind it (ISO 14496-2, 6.2.5)."""
    place = packet.find(b"\0\0\1\xb6")
    return 0 <= place < len(packet) - 4 and packet[place + 4] >> 6 == 2


def _vp8(packet: bytes, keyframe: bool) -> str:
    if len(packet) < 3 or keyframe != (packet[0] & 1 == 0):
        return "a packet is no VP8 frame"
    if keyframe and packet[3:6] != b"\x9d\x01\x2a":
        return "a packet is no VP8 frame"
    return "" if packet[0] & 16 else "a frame that is not shown"


def _vp9(packet: bytes, keyframe: bool) -> str:
    first = packet[0]
    if first >> 6 != 2:
        return "a packet is no VP9 frame"
    if first & 0x30 == 0x30:
        return "an unusual VP9 profile"
    if packet[-1] >> 5 == 6:
        return ""  # several frames, of which the last is shown
    return "" if first & 8 or first & 2 else "a frame that is not shown"


def _flv1(packet: bytes, keyframe: bool) -> str:
    if len(packet) <= 4 or packet[0] or packet[1] or not packet[2] & 0x80:
        return "a packet is no Sorenson frame"
    head = int.from_bytes(packet[:9].ljust(9, b"\0"), "big")
    # After 30 bits, three say how the size is written: 0 and 1, with as many bits as here; then comes the kind.
    kind = head >> 37 - {0: 16, 1: 32}.get(head >> 39 & 7, 0) & 3
    return "" if keyframe == (kind == 0) else "a frame of another kind than is stated"


def _mjpeg(packet: bytes, keyframe: bool) -> str:
    whole = packet[:2] == b"\xff\xd8" and b"\xff\xd9" in packet[-64:]
    return "" if whole else "a packet is no whole JPEG"
