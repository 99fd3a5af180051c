"""Frames of a video file by index, decoded by PyAV from the preceding keyframe.

Frames are streamed: each is converted, resized and released before the next one is decoded.

So the memory is FFmpeg's own, and one RGB image: 100 MB at 8K (7680×4320). FFmpeg holds the pictures that others refer
to, and those that it reorders, and the stream alone decides how many: there is one decoding thread already, and FFmpeg
decodes H.264, HEVC, VP9 and AV1 neither at a lower resolution nor with fewer references. So 8K takes more than 300 MB
in HEVC, AV1 and H.264 with several references. Measured at 8K, in MB: 50 for Motion JPEG; 143 for H.264 with one
reference, 240 with 10 bits a colour, 340 with four references, 1,130 with sixteen; 430 for HEVC, 720 with 10 bits; 160
for VP9; 300 to 410 for AV1. At 4K, with the image: 36 for Motion JPEG; 58 for H.264 with one reference, 254 with
sixteen; 131 for HEVC, 204 with 10 bits; 88 for VP9; 97 for ProRes; 138 for AV1.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from adatosk.video.decoders import AnotherOrder, checksums, damage, decode, sums_without_an_end
from adatosk.video.files import ADVICE, Packets, VideoFile
from adatosk.video.folders import VideoError
from adatosk.video.orientation import Turn, turn_of, upright
from adatosk.video.packets import NO_PICTURE, TORN

# Up to this many bytes, decoded frames are kept while a file's frames are counted; beyond it, they are decoded twice.
HELD_BYTES = 64 << 20
# Beyond it, a frame is compared with the one that was counted, by the checksum of each eighth row.
ROWS = 8
# Up to this distance in frames, decoding on is cheaper than reopening the file at the next keyframe.
NEAR = 30
# Formats without lengths, in which nothing but the picture itself tells whether the last one is whole.
OPEN_ENDED = frozenset({"hevc", "mpegts", "mpeg"})
# Beside those that only have keyframes, codecs in which each packet is a frame; some packets of others are not shown.
A_FRAME_EACH = frozenset({"cinepak", "svq1", "qtrle", "rpza", "smc", "msvideo1", "av1", "vp9"})
# The codec of which FFmpeg tells some damage only after several frames, when it knows how they end.
TOLD_LATE = "flv1"
# Codecs in which each packet is a frame, unless it takes a few bytes only: these say that the last one stays.
A_FRAME_OR_NOTHING = frozenset({"mpeg4", "flv1", "h263", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2"})
NOTHING = 12


class Frames:
    """A video file's frames, counted once, in presentation order.

    Args:
        file: as returned by :func:`adatosk.video.files.inspect`.
        thorough: decode VP9 with libvpx, too, to find damage that FFmpeg conceals.

    Attributes:
        count: number of frames that decode.
        times: presentation time of each; ``None`` if times do not increase from frame to frame.

    Raises:
        VideoError: frames have to be decoded to be counted, and one of them is damaged or truncated.
    """

    def __init__(self, file: VideoFile, thorough: bool = False):
        self.file, self.thorough = file, thorough
        self.times = file.times
        self._held: list[av.VideoFrame] | None = None
        self._seen: list[list[int]] = []
        self._known_keys: tuple[np.ndarray, np.ndarray] | None = None
        self.count = len(file.times) if file.times is not None else self._count_decoded()

    def _count_decoded(self) -> int:
        held, size, times, sums = [], 0, [], []
        packets = self.file.packets
        open_ended = packets.codec == "hevc" and packets.format in OPEN_ENDED
        for frame in decode(self.file, packets.first, self.thorough):
            times.append(frame.pts)
            if open_ended:
                sums.append(checksums(frame))
            size += sum(plane.buffer_size for plane in frame.planes)
            if size <= HELD_BYTES:
                held.append(frame)
            else:
                self._seen += [checksums(one, ROWS) for one in (*held, frame)]
                held.clear()
            del frame
        if not times:
            raise VideoError(f"{self.file.path}: the video has no frames: {ADVICE}")
        if len(times) < (whole := _least_count(packets)):
            raise VideoError(f"{self.file.path}: damaged: only {len(times)} of {whole} frames decode: {ADVICE}")
        if None not in times and all(one < other for one, other in pairwise(times)):
            self.times = np.array(times, dtype=np.int64)
        if open_ended and sums != sums_without_an_end(self.file):
            raise VideoError(f"{self.file.path}: cut short: its last frame is not whole: {ADVICE}")
        self._held = held or None
        return len(times)

    def images(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """Upright RGB images, uint8 ``(H, W, 3)``, of frames by increasing index; each is valid only until the next.

        Raises:
            VideoError: a frame is damaged, missing or not of the same size as the first.
        """
        convert = VideoReformatter()
        for frame, turn in self._turned(numbers):
            # Without a name, so that an image is released before the next frame is decoded: one of 8K takes 100 MB.
            yield upright(_rgb(convert, frame), turn)
            del frame

    def decode_all(self) -> tuple[int, int]:
        """Decode every frame, convert none; height and width of the upright ones; errors as in :meth:`images`."""
        shape = 0, 0
        for frame, turn in self._turned(range(self.count)):
            shape = _upright_shape(frame, turn)
            del frame
        return shape

    def _turned(self, numbers: Sequence[int]) -> Iterator[tuple[av.VideoFrame, Turn]]:
        """Frames of one size, with their orientation."""
        shape, turn = None, None
        for frame in self.decoded(numbers):
            turn = turn_of(frame) if turn is None or frame.key_frame else turn
            if turn is None:
                raise VideoError(
                    f"{self.file.path}: its pictures are to be turned by an angle that is no quarter turn: {ADVICE}"
                )
            found = _upright_shape(frame, turn)
            shape = shape or found
            if found != shape:
                sizes = f"{shape[1]}×{shape[0]}, {found[1]}×{found[0]} pixels"
                raise VideoError(f"{self.file.path}: its frames change their size ({sizes}): {ADVICE}")
            yield frame, turn
            del frame

    @property
    def keyframes(self) -> list[int]:
        """Indices of the frames from which decoding may start."""
        return self._keys()[1].tolist()

    def decoded(self, numbers: Sequence[int]) -> Iterator[av.VideoFrame]:
        """PyAV's frames, neither converted nor rotated; indices and errors as in :meth:`images`."""
        if self._held is not None:
            yield from (self._held[number] for number in numbers)
            return
        done = 0
        while done < len(numbers):
            start, first = self._start(numbers[done])
            stop = done + 1
            while stop < len(numbers) and self._start(numbers[stop])[1] <= numbers[stop - 1] + NEAR:
                stop += 1
            try:
                for frame in self._from(start, first, numbers[done:stop]):
                    yield frame
                    del frame
                    done += 1
            except AnotherOrder:
                yield from self._from(self.file.packets.first, 0, numbers[done:stop], whole=True)
                done = stop

    def _start(self, number: int) -> tuple[int, int]:
        """The packet of the last keyframe from which frame ``number`` can be decoded, and that keyframe's index."""
        places, firsts = self._keys()
        chosen = np.searchsorted(firsts, number, side="right") - 1 if self.file.packets.codec != TOLD_LATE else -1
        return (int(places[chosen]), int(firsts[chosen])) if chosen >= 0 else (self.file.packets.first, 0)

    def _keys(self) -> tuple[np.ndarray, np.ndarray]:
        if self._known_keys is None:
            packets = self.file.packets
            places, firsts = [packets.first], [0]
            if self.times is not None:
                for place in np.flatnonzero(packets.keys)[1:]:
                    time = packets.times[place]
                    number = np.searchsorted(self.times, time) if time is not None else len(self.times)
                    if firsts[-1] < number < len(self.times) and self.times[number] == time:
                        places.append(place)
                        firsts.append(number)
            self._known_keys = np.array(places), np.array(firsts)
        return self._known_keys

    def _unneeded(self, first: int, numbers: Sequence[int]) -> frozenset[int]:
        """Times of the frames from index ``first`` on that may be left out if no other refers to them.

        For every fourth frame of what x264 writes by default, that saves 40 % of the decoding.
        """
        # Only where packets count the frames is it known which one is missing.
        if self.file.times is None or self.file.packets.codec != "h264":
            return frozenset()
        return frozenset(self.file.times[first : numbers[-1]].tolist()) - set(self.file.times[numbers].tolist())

    def _from(self, place: int, first: int, numbers: Sequence[int], whole: bool = False) -> Iterator[av.VideoFrame]:
        """Frames ``numbers``, decoded from packet ``place`` on, whose frame has the index ``first``.

        Args:
            whole: decode those between them, too, even if no frame refers to them.

        Raises:
            VideoError: as :meth:`images`, when everything is decoded from the first keyframe.
            AnotherOrder: instead, when it is not.
        """
        sequential, times = place == self.file.packets.first, self.times
        unneeded = frozenset() if whole else self._unneeded(first, numbers)
        tentative = bool(unneeded) or not sequential
        end = None if times is None or numbers[-1] == self.count - 1 else int(times[numbers[-1]])
        wanted, number = iter(numbers), first
        target, last = next(wanted), None
        left_out: set[int] = set()
        for frame in decode(self.file, place, self.thorough, unneeded=unneeded, left_out=left_out, end=end):
            if not sequential and times is not None and (frame.pts is None or frame.pts < times[first]):
                continue  # before the keyframe, in an open group
            if target is None and end is not None:
                continue  # is intact
            while times is not None and number < self.count and frame.pts != times[number] in left_out:
                number += 1
            if times is not None and (number == self.count or frame.pts != times[number]):
                which = f"frame {number} of {self.count}"
                raise damage(f"{self.file.path}: damaged: {which} is another one than its packets say", tentative)
            if number == target:
                if not sequential and self._seen and checksums(frame, ROWS) != self._seen[number]:
                    raise AnotherOrder  # not a keyframe, although it is called one, or one that relies on others
                target = next(wanted, None)
                if target is not None:
                    yield frame
                else:
                    last = frame
                    if times is None and numbers[-1] < self.count - 1:
                        break
            del frame
            number += 1
        if last is None:
            there = f"only {number} of {self.count} frames decode"
            raise damage(f"{self.file.path}: cut short or damaged: {there}", tentative)
        yield last


def _least_count(packets: Packets) -> int:
    """How many frames intact packets give at least; 0 where packets do not tell."""
    there = list(zip(packets.shown, packets.sizes, strict=True))[packets.first :]
    if packets.codec in A_FRAME_EACH or av.codec.Codec(packets.codec, "r").intra_only:
        return sum(shown for shown, _ in there)
    if packets.codec in A_FRAME_OR_NOTHING:
        return sum(shown and size > NOTHING for shown, size in there) - packets.leading
    # What is shown before the first keyframe may refer to pictures that are not there.
    first, begin = packets.first, packets.times[packets.first]
    known = [time is not None and begin is not None and time >= begin for time in packets.times[first:]]
    rest = zip(packets.said[first:], packets.shown[first:], known, strict=False)
    return sum(said in TORN for said in packets.said[:first]) + sum(
        said != NO_PICTURE and shown and after for said, shown, after in rest
    )


def _upright_shape(frame: av.VideoFrame, turn: Turn) -> tuple[int, int]:
    return (frame.width, frame.height) if turn.exchange else (frame.height, frame.width)


def _rgb(convert: VideoReformatter, frame: av.VideoFrame) -> np.ndarray:
    # One converter per clip, with one thread: PyAV's to_ndarray creates one per frame, with one thread per core, which
    # takes longer than decoding a small frame.
    plane = convert.reformat(frame, format="rgb24", threads=1).planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(frame.height, plane.line_size)
    return rows[:, : 3 * frame.width].reshape(frame.height, frame.width, 3)
