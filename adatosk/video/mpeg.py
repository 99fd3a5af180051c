"""Check that an MPEG transport or program stream (ISO 13818-1) is complete, packet by packet."""

from typing import BinaryIO

import numpy as np

from adatosk.video.streams import damaged, only_zeros, read

_SECTOR, _FEW_ZEROS = 2048, 16  # bytes of a disc's sector; zeros before a packet that are no hole


def follow_transport(file: BinaryIO, end: int) -> str:
    """Transport packets of 188 bytes, of 192 with a leading time stamp, or of 204 with a trailing checksum.

    FFmpeg marks what a gap in their count leaves. It passes over the beginning of a picture that is not one.
    """
    head = read(file, 0, 204 * 8)
    for step, first in ((188, 0), (192, 4), (204, 0)):
        if head[first::step] == b"G" * len(head[first::step]):
            break
    else:
        return ""  # begins inside a packet: FFmpeg finds the first one
    file.seek(0)
    place, kinds = 0, {}
    while block := file.read(step * 4096):
        marks = block[first::step]
        if marks.strip(b"G"):
            return damaged(place + first + step * next(i for i, mark in enumerate(marks) if mark != 0x47))
        packets = np.frombuffer(block[: len(block) // step * step], np.uint8).reshape(-1, step)[:, first : first + 188]
        odd = _other_kind(packets, kinds)
        if odd is not None:
            return damaged(place + first + step * odd)
        place += len(block)
    return f"cut short: its last packet of {step} bytes is not whole" if end % step else ""


def _other_kind(packets: np.ndarray, kinds: dict[int, bool]) -> int | None:
    """The first packet ``(N, 188)`` where a table stands instead of a picture or sound, or the other way round.

    Args:
        kinds: by packet identifier, whether pictures or sound begin in its packets; added to.
    """
    intact_start, clear_payload = packets[:, 1] & 0xC0 == 0x40, packets[:, 3] & 0xD0 == 0x10
    for number in np.flatnonzero(intact_start & clear_payload):
        packet = packets[number].tobytes()
        begin = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
        kind, stream = packet[begin : begin + 3] == b"\0\0\1", int.from_bytes(packet[1:3], "big") & 0x1FFF
        if begin <= 185 and kinds.setdefault(stream, kind) != kind:
            return int(number)
    return None


def follow_program(file: BinaryIO, end: int) -> str:
    """Packs and packets of an MPEG program stream (ISO 11172-1, 13818-1); zeros may fill a sector, before a pack."""
    place, filled = 0, 0
    while place + 4 <= end:
        head = read(file, place, 14)
        if head[:3] != b"\0\0\1":
            if only_zeros(file, place):
                return ""
            block = read(file, place, _SECTOR + 2)
            filled = len(block) - len(block.lstrip(b"\0")) - 2  # two belong to the next start code
            if not 0 < filled < _SECTOR:
                return damaged(place)
            place += filled
            continue
        kind = head[3]
        if kind not in (0xB9, 0xBA) and filled > _FEW_ZEROS:
            return damaged(place - filled)
        if kind == 0xB9:
            place += 4
        elif kind == 0xBA:
            place += 14 + (head[13] & 7) if len(head) == 14 and head[4] & 0xC0 == 0x40 else 12
        elif kind >= 0xBB:
            place += 6 + int.from_bytes(head[4:6], "big")
        else:
            return damaged(place) if place else ""  # bare video without packets
        filled = 0
    return "cut short: its last packet is not whole" if place != end else ""
