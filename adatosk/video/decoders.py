"""From a keyframe on, a video file's frames, decoded by PyAV; damage is an error, never a frame.

A reader is opened where it is used, with a single thread: a reader that crosses a fork deadlocks, and parallelism is
over clips.
"""

import zlib
from collections.abc import Iterator

import av
import numpy as np

from adatosk.video.files import ADVICE, VideoFile, demuxed, opened, reason
from adatosk.video.folders import VideoError
from adatosk.video.packets import continued, is_left_alone

# Skipping up to this many packets is cheaper than seeking.
FEW_PACKETS = 300
# FFmpeg's VP9 decoder conceals nearly all damage; libvpx reports it, and takes 11 % longer.
CHECKERS = {"vp9": "libvpx-vp9"}


class AnotherOrder(Exception):
    """Decoding from a keyframe, or without some frames, does not give what decoding everything gives."""


def checksums(frame: av.VideoFrame, step: int = 1) -> list[int]:
    """Checksums of a frame's planes, without the bytes that only fill their rows; of each ``step``-th row alone."""
    wide = 1 + (frame.format.components[0].bits > 8)
    rows = [np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size) for plane in frame.planes]
    return [
        zlib.crc32(row[::step, : plane.width * wide].tobytes()) for row, plane in zip(rows, frame.planes, strict=True)
    ]


def sums_without_an_end(file: VideoFile) -> list[list[int]]:
    """Checksums of all frames of a stream whose last picture goes on; empty if it has none or does not decode."""
    try:
        return [checksums(frame) for frame in decode(file, file.packets.first, going_on=True)]
    except VideoError:
        return []


def decode(
    file: VideoFile,
    place: int,
    thorough: bool = False,
    going_on: bool = False,
    unneeded: frozenset[int] = frozenset(),
    left_out: set[int] | None = None,
    end: int | None = None,
) -> Iterator[av.VideoFrame]:
    """Frames from packet ``place`` on, which is a keyframe; all of them intact.

    Args:
        thorough: decode with one of ``CHECKERS``, too.
        going_on: let the last picture go on with other bytes, see :func:`adatosk.video.packets.continued`.
        unneeded: times of frames of an H.264 file to leave out if no other refers to them.
        left_out: takes the times of those that are left out.
        end: time of the frame after which no other is needed. Those that have been decoded by then still come, since
            damage is told of a frame when it is shown, which may be after frames that refer to it.

    Raises:
        VideoError: a frame is damaged when decoding everything from the first keyframe.
        AnotherOrder: a frame is damaged when decoding from another keyframe or without the ``unneeded``, or the
            keyframe is not found again.
    """
    path, packets = file.path, file.packets
    tentative, bad, number, ended = bool(unneeded) or place != packets.first, None, 0, False
    begin = packets.times[place] if packets.times else None
    with opened(path) as (container, stream):
        checker = _checker(stream) if thorough else None
        source = _packets_from(container, stream, file, place)
        if left_out is not None:
            source = _needed(source, stream.codec_context.extradata, unneeded, left_out)
        if going_on:
            source = _going_on(source, file, place)
        for packet in source:
            drained = ended
            try:
                frames = stream.decode(None if ended else packet)
                if checker:
                    checker.decode(packet)
            except MemoryError:
                raise
            except av.FFmpegError as error:
                if not tentative and _before(packet.pts, begin):
                    continue
                raise damage(f"{path}: damaged: frame {number} does not decode ({reason(error)})", tentative) from error
            while frames:
                frame = frames.pop(0)
                if frame.is_corrupt and _before(frame.pts, begin):
                    continue
                if bad is not None or (frame.is_corrupt and tentative):
                    raise damage(f"{path}: damaged: frame {bad} does not decode whole", tentative)
                if frame.is_corrupt:
                    bad = number
                else:
                    yield frame
                ended |= end is not None and frame.pts == end
                del frame
                number += 1
            if drained:
                break
    if bad is not None:
        said = f"damaged: frame {bad}" if ended else f"cut short: its last frame, number {bad},"
        raise damage(f"{path}: {said} is not whole", tentative)


def damage(text: str, tentative: bool) -> AnotherOrder | VideoError:
    """What to raise: when decoding is ``tentative``, nothing is told before everything has been decoded."""
    return AnotherOrder(text) if tentative else VideoError(f"{text}: {ADVICE}")


def _checker(stream: av.VideoStream) -> av.VideoCodecContext | None:
    """A second decoder of 8-bit pictures, if this build of PyAV has it."""
    name, pixels = CHECKERS.get(stream.codec_context.codec.canonical_name), stream.codec_context.format
    if name not in av.codecs_available or pixels is None or any(part.bits != 8 for part in pixels.components):
        return None
    checker = av.CodecContext.create(name, "r")
    checker.thread_count = 1
    return checker if isinstance(checker, av.VideoCodecContext) else None


def _before(time: int | None, begin: int | None) -> bool:
    """Whether a frame is shown before the first keyframe: it refers to frames from before the beginning of the file."""
    return time is not None and begin is not None and time < begin


def _packets_from(
    container: av.container.InputContainer, stream: av.VideoStream, file: VideoFile, place: int
) -> Iterator[av.Packet]:
    packets, number = file.packets, 0
    start = (packets.times[place], packets.orders[place], packets.sizes[place]) if packets.sizes else None
    source = demuxed(container, stream)
    if place > FEW_PACKETS and (order := packets.orders[place]) is not None:
        container.seek(order, stream=stream)
        for packet in source:
            if (packet.pts, packet.dts, packet.size) == start:
                yield packet
                break
            if packet.dts is None or packet.dts > order:
                raise AnotherOrder
    else:
        for packet in source:
            number += packet.size > 0
            if number > place:
                yield packet
                break
    # An empty packet would end the decoding, so only the last one, which is meant to, is passed on.
    yield from (packet for packet in source if packet.size or packet.dts is None)


def _going_on(packets: Iterator[av.Packet], file: VideoFile, place: int) -> Iterator[av.Packet]:
    """Packets from ``place`` on, the last one with other bytes behind its picture; `VideoError` if it has none."""
    for index, packet in enumerate(packets, start=place):
        data = continued(packet) if index == len(file.packets.keys) - 1 else packet
        if data is None:
            raise VideoError(f"{file.path}: cut short: its last picture is missing: {ADVICE}")
        yield data


def _needed(
    packets: Iterator[av.Packet], extradata: bytes | None, unneeded: frozenset[int], left_out: set[int]
) -> Iterator[av.Packet]:
    """Packets of H.264 but those of ``unneeded`` frames to which no other refers; each waits for the next one."""
    waiting = None
    for packet in packets:
        if waiting is not None:
            time, before = waiting
            if is_left_alone(bytes(before), bytes(packet), extradata):
                left_out.add(time)
            else:
                yield before
        waiting = (packet.pts, packet) if packet.pts is not None and packet.pts in unneeded else None
        if waiting is None:
            yield packet
