"""Inspection of a video file: whether it is complete, its number of frames, and how they may be read.

Frames are counted by packets if each packet is known to be one frame, in files with an index or with a codec whose
packets can be inspected. Everything else is first decoded from end to end: only then is the count reliable, and only
this detects the truncation of a stream without a stated length.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from adatosk.video.containers import fault, null_frames
from adatosk.video.folders import VideoError
from adatosk.video.packets import OPEN, is_between, look_for

ADVICE = "fetch or convert it again, or exclude the clip"

# Containers without a frame count (mkv, webm, flv) mostly state their size in bytes and a duration, which is not always
# exact to the frame. If more than both of these is missing, the file is truncated.
MISSING_SHARE, MISSING_SECONDS = 0.05, 0.25

# Formats that FFmpeg opens as a video although they are a still image, like all its …_pipe formats, or rendered text.
STILLS = frozenset({"image2", "tty", "bin", "xbin", "adf", "idf"})

# What may be read: moving pictures in one file; and sound, pictures and texts, which are then named as such. A playlist
# (hls, concat, dash, …) would have FFmpeg read whatever files it names. Bare H.261, VVC, EVC and AVS are left out,
# because nothing tells whether their last picture is whole.
_FILES = """aac aiff apng asf av1 avi dirac dnxhd dv flac flv gif gxf h263 h264 hevc ivf kux live_flv m4v matroska,webm
    mjpeg mov,mp4,m4a,3gp,3g2,mj2 mp3 mpeg mpegts mpegtsraw mpegvideo mxf nsv nut obu ogg rm swf vc1 wav wtv
    yuv4mpegpipe"""
_PIPES = sorted(name for name in av.formats_available if name.endswith("_pipe"))
_GUARDED = {"protocol_whitelist": "file", "format_whitelist": ",".join([*_FILES.split(), *sorted(STILLS), *_PIPES])}

MP4, MATROSKA, FLASH, AVI = "mov,mp4,m4a,3gp,3g2,mj2", "matroska,webm", "flv", "avi"
# Formats in which every packet is one frame and has its time, so that packets suffice to count and locate frames.
COUNTED = {
    MP4: {"h264", "hevc", "vp9", "mjpeg"},
    MATROSKA: {"h264", "hevc", "vp8", "vp9", "mjpeg"},
    FLASH: {"flv1", "h264"},
    AVI: {"mjpeg"},
}
# FFmpeg conceals damage in these codecs unless told to stop; for HEVC, also on a mismatch of a picture's checksum.
STRICT = {"hevc": {"err_detect": "crccheck+explode"}, "mjpeg": {"err_detect": "explode"}}


@dataclass
class Packets:
    """What a file's packets reveal about its video.

    Attributes:
        format, codec: FFmpeg's names.
        stated: number of frames stated by the container; 0 if it states none.
        seconds, end: the stated duration, and where the last packet ends, counted from 0 or an earlier beginning.
        broken: number of packets marked as corrupt.
        times, orders, sizes, keys, shown: for each packet, its presentation time (``None`` if unknown), decoding time
            and size in bytes, whether decoding may start at it, and whether the edit list shows it.
        unusual: why the packets cannot be used for counting frames; empty if they can.
        said: what is unusual about each packet; empty unless packets of H.264 or HEVC are frames, each with its time.
        open: whether groups of pictures refer to each other.
        leading: number of MPEG-4's pictures right behind the first keyframe that refer to one before it, which may be
            missing.
        streams: number of videos in the file.
        unit: seconds per unit of ``times``.
        rate: average number of frames per second as stated; 0 if unknown.
    """

    format: str
    codec: str
    stated: int
    seconds: float
    streams: int
    end: float = 0.0
    broken: int = 0
    times: list[int | None] = field(default_factory=list)
    orders: list[int | None] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)
    shown: list[bool] = field(default_factory=list)
    unusual: str = ""
    said: list[str] = field(default_factory=list)
    open: bool = False
    leading: int = 0
    unit: float = 0.0
    rate: float = 0.0

    @property
    def first(self) -> int:
        """The packet to start at: packets before the first keyframe refer to missing frames."""
        return self.keys.index(True) if True in self.keys else 0


@dataclass(frozen=True)
class VideoFile:
    """A file that is complete, judging by its packets.

    Attributes:
        path: the file.
        packets: information from its packets.
        times: presentation time of each frame, increasing, in the stream's time base; ``None`` if packets do not
            determine it, so that frames have to be decoded to be counted.
    """

    path: Path
    packets: Packets
    times: np.ndarray | None


@contextmanager
def opened(path: Path, **options: str) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """A file's container and its video, for decoding by one thread; FFmpeg's errors are raised with the file's name."""
    try:
        # With the protocol named, a colon in the file's name is none.
        with av.open(f"file:{path}", options=_GUARDED | options, metadata_errors="replace") as container:
            stream = _video_of(container, path)
            if stream.codec_context is None:
                raise VideoError(f"{path}: its video is of a kind that no decoder knows: {ADVICE}")
            stream.codec_context.thread_count = 1
            stream.codec_context.options = STRICT.get(stream.codec_context.codec.canonical_name, {})
            yield container, stream
    except UnicodeEncodeError as error:
        raise VideoError(f"{path}: a name that is not UTF-8, which no decoder opens: rename the file") from error
    except MemoryError as error:
        advice = "the memory does not hold its frames (too large, damaged, or many at once): convert or exclude it"
        raise VideoError(f"{path}: {advice}") from error
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: not a video that can be read ({reason(error)}): {ADVICE}") from error


def inspect(path: Path) -> VideoFile:
    """Read a file's packets; nothing is decoded.

    Raises:
        VideoError: it is no video, cut short or damaged as far as that can be seen.
    """
    with opened(path) as (container, stream):
        packets = _read_packets(container, stream)
    _refuse_a_part(path, packets)
    return VideoFile(path, packets, _times(packets))


def _video_of(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The first stream of moving pictures: not the cover of a song or a film, a photo, or text that FFmpeg draws."""
    if container.format.name == "webp_pipe" and _is_animated_webp(path):
        raise VideoError(f"{path}: an animated WebP, which no decoder here reads: convert it, such as to MP4")
    moving = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not moving:
        raise VideoError(f"{path}: no video in this file (only sound, text or a cover, or it is cut short): {ADVICE}")
    if container.format.name in STILLS or container.format.name.endswith("_pipe"):
        raise VideoError(f"{path}: no video in this file, but a single picture or text: {ADVICE}")
    # An animated AVIF begins with its still image, a stream of one frame without a duration.
    return next((one for one in moving if one.frames != 1 or one.duration is not None), moving[0])


def _is_animated_webp(path: Path) -> bool:
    """Whether the extended header has the flag of an animation (RFC 9649, 2.7)."""
    with path.open("rb") as file:
        head = file.read(21)
    return head[12:16] == b"VP8X" and bool(head[20] & 2)


def demuxed(container: av.container.InputContainer, *streams: av.VideoStream) -> Iterator[av.Packet]:
    """Packets of some streams, or of all that there were when the file was opened.

    Behind the last packet, PyAV may fail on a stream that appeared later, such as a sound that begins late.
    """
    with suppress(IndexError):
        yield from container.demux(*streams)


def _read_packets(container: av.container.InputContainer, video: av.VideoStream) -> Packets:
    codec, name = video.codec_context, video.codec_context.codec.canonical_name
    found = Packets(
        container.format.name,
        name,
        video.frames,
        (container.duration or 0) / av.time_base,
        len(container.streams.video),
        unit=float(video.time_base or 0),
        rate=float(video.average_rate or 0),
    )
    look = look_for(name, codec.extradata) if name in COUNTED.get(found.format, ()) else None
    found.unusual = "" if look else f"{name} in {found.format}"
    if codec.field_order > 1:
        look, found.unusual = None, "interlaced"
    ends: dict[int, int] = {}
    # The clock of a transport stream wraps after 26 hours: FFmpeg then counts from below 0.
    begin = min(0, container.start_time or 0) / av.time_base
    for packet in demuxed(container):
        if not packet.size:
            continue
        found.broken += packet.is_corrupt
        time, index = packet.pts, packet.stream_index
        if time is not None:
            end = time + (packet.duration or 0)
            ends[index] = max(ends.get(index, end), end)
        if index != video.index:
            continue
        keyframe = packet.is_keyframe
        found.times.append(time)
        found.orders.append(packet.dts)
        found.sizes.append(packet.size)
        found.keys.append(keyframe)
        found.shown.append(not packet.is_discard)
        if name == "mpeg4" and len(found.keys) == found.first + 2 + found.leading and not keyframe:
            found.leading += is_between(bytes(packet))
        if look:
            said = look(bytes(packet), keyframe)
            found.open |= said == OPEN
            found.said.append("" if said == OPEN else said)
            found.unusual = found.unusual or _changed(packet, codec) or found.said[-1]
    if codec.has_b_frames and _rise(found.times):
        # As programs write them that copy an AVI, which has no others.
        found.unusual = found.unusual or "times in the order of decoding, although its frames are shown in another"
        found.said.clear()
    if name not in ("h264", "hevc"):
        found.said.clear()
    bases = {stream.index: stream.time_base for stream in container.streams}
    found.end = max(
        (float(end * base) - begin for index, end in ends.items() if (base := bases.get(index))), default=0.0
    )
    return found


def _changed(packet: av.Packet, codec: av.VideoCodecContext) -> str:
    """Whether the container gives other parameter sets from this packet on, as Flash and a second table of MP4 do."""
    if not packet.has_sidedata("new_extradata") or bytes(packet.get_sidedata("new_extradata")) == codec.extradata:
        return ""
    return "its pictures change their kind"


def _rise(times: list[int | None]) -> bool:
    return None not in times and bool((np.diff(np.array(times, dtype=np.int64)) > 0).all())


def _refuse_a_part(path: Path, packets: Packets) -> None:
    """VideoError of a file that lacks frames, bytes or seconds that it says it has."""
    there = len(packets.keys)
    if not packets.stated or packets.format not in (MP4, AVI):
        # An index that names every frame is proof enough; all else is followed from part to part.
        said = fault(path, packets.format)
        if said:
            raise VideoError(f"{path}: {said}: {ADVICE}")
    missing = packets.seconds - packets.end
    if not packets.stated and missing > max(MISSING_SECONDS, MISSING_SHARE * packets.seconds):
        raise VideoError(f"{path}: cut short: {packets.end:.2f} of {packets.seconds:.2f} seconds are there: {ADVICE}")
    if not packets.broken and there < packets.stated:
        there += _frames_not_shown(path, packets)
    if packets.broken or there < packets.stated:
        whole = f"{there - packets.broken} of {packets.stated or 'its'} frames are whole"
        raise VideoError(f"{path}: cut short or damaged: {whole}: {ADVICE}")
    if not packets.keys or True not in packets.shown:
        raise VideoError(f"{path}: the video has no frames: {ADVICE}")


def _frames_not_shown(path: Path, packets: Packets) -> int:
    """Frames that the container counts and does not give: before an edit list's start, or repeating the one before."""
    if packets.format == AVI:
        return null_frames(path)
    if packets.format != MP4:
        return 0
    with opened(path, ignore_editlist="1") as (container, stream):
        whole = [packet for packet in demuxed(container, stream) if packet.size and not packet.is_corrupt]
    return max(0, len(whole) - len(packets.keys))


def _times(packets: Packets) -> np.ndarray | None:
    """Presentation time of each frame if packets determine it: none is unusual, hidden or before the first keyframe."""
    if packets.unusual or not packets.keys[0] or None in packets.times:
        return None
    times, shown = np.array(packets.times, dtype=np.int64), np.array(packets.shown)
    # An edit list that starts after a keyframe hides the frames between them.
    first, hidden = times[0], times[~shown]
    times = np.sort(times[shown])
    if len(hidden) and (hidden.max() > times[0] or hidden.min() < first):
        return None
    return times if _rise(times.tolist()) and times[0] >= first else None


def reason(error: Exception) -> str:
    """FFmpeg's or the system's message."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
