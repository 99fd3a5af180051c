"""What a look at the start of each packet tells: is it whole, is it a frame, may one start to decode at it?

Nothing is decoded; a packet costs about a microsecond.
"""

from collections.abc import Callable

# Kinds of NAL units that hold a picture from which on nothing refers to what stood before: IDR.
_H264_IDR, _HEVC_IDR = {5}, {19, 20}
_H264_PICTURES, _HEVC_PICTURES = range(1, 6), range(32)
_H264_SPS, _HEVC_SPS = 7, 33

OPEN = "an open group of pictures"

# A look at one packet, whether it is marked as a keyframe or not: what is unusual about it, or nothing.
Look = Callable[[bytes, bool], str]


def look_for(codec: str, extradata: bytes | None) -> Look | None:
    """The look at a codec's packets; ``None`` where a packet's start does not tell, or not in this form.

    Args:
        codec: FFmpeg's name of it.
        extradata: the stream's; of H.264 and HEVC it says how many bytes a unit's length takes.
    """
    if codec in ("h264", "hevc"):
        place = 4 if codec == "h264" else 21
        if not extradata or extradata[0] != 1 or len(extradata) <= place:
            return None  # units between start codes, as in a stream
        return _units(codec, (extradata[place] & 3) + 1)
    return {"vp8": _vp8, "vp9": _vp9, "flv1": _flv1, "mjpeg": _mjpeg}.get(codec)


def _units(codec: str, width: int) -> Look:
    """Units of H.264 or HEVC, each behind its length of ``width`` bytes, have to fill a packet."""
    h264 = codec == "h264"
    pictures, idr, sps = (_H264_PICTURES, _H264_IDR, _H264_SPS) if h264 else (_HEVC_PICTURES, _HEVC_IDR, _HEVC_SPS)
    sets: set[bytes] = set()

    def look(packet: bytes, keyframe: bool) -> str:
        place, kinds = 0, set()
        while place < len(packet):
            start = place + width
            place = start + int.from_bytes(packet[place:start], "big")
            if not start < place <= len(packet) or packet[start] & 0x80:
                return "a packet is no row of NAL units"
            # Inside a unit three zeros cannot follow each other: 3 is put between them (H.264, 7.4.1).
            if packet.find(b"\0\0\0", start, place) >= 0:
                return "a packet has a hole"
            kind = packet[start] & 31 if h264 else packet[start] >> 1 & 63
            kinds.add(kind)
            if kind == sps:
                sets.add(packet[start:place])
        shown = kinds.intersection(pictures)
        if not shown:
            return "a packet without a picture"
        if len(sets) > 1:
            return "its pictures change their kind"
        return OPEN if keyframe and not shown <= idr else ""

    return look


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
    whole = len(packet) > 4 and not packet[0] and not packet[1] and packet[2] & 0x80
    return "" if whole else "a packet is no Sorenson frame"


def _mjpeg(packet: bytes, keyframe: bool) -> str:
    whole = packet[:2] == b"\xff\xd8" and b"\xff\xd9" in packet[-64:]
    return "" if whole else "a packet is no whole JPEG"
