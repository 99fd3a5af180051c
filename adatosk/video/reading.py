"""From a video file, or a folder of frames, to the frames of one clip.

Video files are decoded by decord where it is installed and by PyAV elsewhere, with the same frames: to the bit, but for
old codecs such as MPEG-4 part 2 whose transform leaves a pixel's last step (1 of 255) to the decoder. Where they
differ in more, in pictures of odd height or of more than 8 bits a colour, PyAV decodes on every machine. A reader is
opened where it is used, with one thread: one that crosses a fork hangs, and clips are what runs in parallel. What
cannot be read whole is an error; a clip is never silently shorter, and never replaced.
"""

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

from adatosk.video.containers import stated_bytes
from adatosk.video.folders import VideoError, fit, image_names, is_image, read_images
from adatosk.video.sampling import frame_indices

HAS_DECORD = importlib.util.find_spec("decord") is not None

# Containers without a frame count (mkv, webm, flv) mostly state how many bytes they have, and a duration, not always to
# the frame. Missing more than both of these means a cut file.
MISSING_SHARE, MISSING_SECONDS = 0.05, 0.25

# Formats that FFmpeg shows as a video though they are a picture, as all its …_pipe are, or text that it draws.
STILLS = frozenset({"image2", "tty", "bin", "xbin", "adf", "idf"})


def read_clip(
    path: str | Path, frames: int = 16, stride: int = 4, start: int | None = None, size: int | None = None
) -> np.ndarray:
    """The sampled frames of one clip.

    Args:
        path: a video file, or a folder of images (jpg, png, bmp), sorted by the numbers in their names.
        frames, stride, start: see :func:`adatosk.video.sampling.frame_indices`.
        size: side in pixels; each frame is cut to its central square and resized. ``None`` keeps frames as they are.

    Returns:
        uint8 ``(frames, H, W, 3)``, RGB.

    Raises:
        VideoError: a missing, empty, truncated or unreadable file, a folder without images, an unreadable image.
        ValueError: impossible sampling.
    """
    return read_frames(path, lambda length: frame_indices(length, frames, stride, start), size)


def decode_all(path: str | Path, size: int | None = None) -> np.ndarray:
    """All frames: uint8 ``(N, H, W, 3)``, RGB; ``size`` and errors as in :func:`read_clip`."""
    return read_frames(path, np.arange, size)


def read_frames(path: str | Path, choose: Callable[[int], np.ndarray], size: int | None = None) -> np.ndarray:
    """The frames that ``choose(number of frames)`` names, by indices that never decrease.

    Returns:
        uint8 ``(len(indices), H, W, 3)``, RGB; ``size`` and errors as in :func:`read_clip`.
    """
    path = _existing(path)
    if path.is_dir():
        names = image_names(path)
        return read_images([f"{path}{os.sep}{names[index]}" for index in choose(len(names))], size)
    length, plain = _probe(path)
    indices = np.asarray(choose(length), dtype=np.int64)
    images = _read_decord(path, indices) if HAS_DECORD and plain else None
    return fit(_read_pyav(path, indices) if images is None else images, size)


def count_frames(path: str | Path) -> int:
    """Frames of a video file, by its packets and not its header, or images of a folder; errors as in `read_clip`."""
    path = _existing(path)
    return len(image_names(path)) if path.is_dir() else _probe(path)[0]


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise VideoError(f"{path}: no such video file or folder of frames: check the root and the manifest")
    if path.is_file() and not path.stat().st_size:
        raise VideoError(f"{path}: the file is empty (0 bytes): fetch it again, or exclude the clip")
    return path


@dataclass
class _Packets:
    """What reading a file's packets tells about its video: all of them, those shown as frames, and the broken ones.

    ``resized``: the last keyframe has another size than the first frame.
    """

    stated: int
    seconds: float
    end: float = 0.0
    packets: int = 0
    shown: int = 0
    broken: int = 0
    rotation: int | None = None
    resized: bool = False


def _probe(path: Path) -> tuple[int, bool]:
    """Number of frames that will decode, and whether decord may show just those.

    decord can hang on broken files, shows repeated frames where an edit list drops some, fails on rotated video,
    stretches frames that change their size and has other colours than PyAV in some: so the packets are read, and the
    first frame and the last keyframe are decoded, with PyAV first: about 1 ms a clip.
    """
    try:
        with av.open(str(path)) as container:
            stream = _video_of(container, path)
            found = _read_packets(container, stream)
            alike = len(container.streams.video) == 1 and _same_colours(stream.codec_context)
    except UnicodeEncodeError as error:
        raise VideoError(f"{path}: a name that is not UTF-8, which no decoder opens: rename the file") from error
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: not a video that can be read ({_reason(error)}): {_ADVICE}") from error
    if not found.stated:
        there, whole = path.stat().st_size, stated_bytes(path)
        if there < whole:
            raise VideoError(f"{path}: cut short: {there} of {whole} bytes are there: {_ADVICE}")
    missing = found.seconds - found.end
    if not found.stated and missing > max(MISSING_SECONDS, MISSING_SHARE * found.seconds):
        raise VideoError(f"{path}: cut short: {found.end:.2f} of {found.seconds:.2f} seconds are there: {_ADVICE}")
    if found.broken or found.packets < found.stated:
        whole = f"{found.packets - found.broken} of {found.stated or 'its'} frames are whole"
        raise VideoError(f"{path}: cut short or damaged: {whole}: {_ADVICE}")
    if not found.shown:
        raise VideoError(f"{path}: the video has no frames: {_ADVICE}")
    return found.shown, alike and found.shown == found.packets and not found.rotation and not found.resized


def _video_of(container: av.container.InputContainer, path: Path) -> av.VideoStream:
    """The first stream of moving pictures: not the cover of a song or a film, a photo, or text that FFmpeg draws."""
    moving = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if not moving:
        raise VideoError(f"{path}: no video in this file (only sound, text or a cover, or it is cut short): {_ADVICE}")
    if container.format.name in STILLS or container.format.name.endswith("_pipe"):
        raise VideoError(f"{path}: no video in this file, but a single picture or text: {_ADVICE}")
    return moving[0]


def _same_colours(codec: av.VideoCodecContext) -> bool:
    """Whether decord's RGB is PyAV's: their converters part where a pixel has more bits, and on an odd last row."""
    pixels = codec.format
    return pixels is not None and all(part.bits == 8 for part in pixels.components) and codec.height % 2 == 0


def _read_packets(container: av.container.InputContainer, video: av.VideoStream) -> _Packets:
    video.codec_context.thread_count = 1
    first, last = None, None
    found = _Packets(stated=video.frames, seconds=(container.duration or 0) / av.time_base)
    for packet in container.demux():
        if not packet.size:
            continue
        found.broken += packet.is_corrupt
        if packet.pts is not None:
            found.end = max(found.end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
        if packet.stream_index == video.index:
            found.packets += 1
            found.shown += not packet.is_discard
            last = packet if packet.is_keyframe and found.packets > 1 else last
            if first is None and not found.broken:
                first = next(iter(packet.decode()), None)
    if first is not None:
        found.rotation = first.rotation
    if first is not None and last is not None and not found.broken:
        found.resized = _size_at(video.codec_context, last) not in (None, (first.width, first.height))
    return found


def _size_at(codec: av.VideoCodecContext, keyframe: av.Packet) -> tuple[int, int] | None:
    """Width and height of a keyframe's picture; ``None`` where it does not decode, which reading it will tell."""
    codec.flush_buffers()
    try:
        frames = [*codec.decode(keyframe), *codec.decode(None)]
    except av.FFmpegError:
        return None
    return (frames[0].width, frames[0].height) if frames else None


_ADVICE = "fetch or convert it again, or exclude the clip"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _read_decord(path: Path, indices: np.ndarray) -> np.ndarray | None:
    """The frames, or ``None`` where decord fails, as it does on whole files of width 48: PyAV decides then."""
    import decord

    try:
        reader = decord.VideoReader(str(path), num_threads=1)
        return reader.get_batch(indices).asnumpy() if len(reader) > indices.max() else None
    except (decord.DECORDError, RuntimeError):
        return None


def _read_pyav(path: Path, indices: np.ndarray) -> np.ndarray:
    wanted, images, number = set(indices.tolist()), {}, 0
    try:
        with av.open(str(path)) as container:
            stream = _video_of(container, path)
            stream.codec_context.thread_count = 1
            for number, frame in enumerate(container.decode(stream), start=1):
                if number - 1 in wanted:
                    image = frame.to_ndarray(format="rgb24")
                    images[number - 1] = np.rot90(image, k=round(frame.rotation / 90)) if frame.rotation else image
                if len(images) == len(wanted):
                    break
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: decoding stops after {number} frames ({_reason(error)}): {_ADVICE}") from error
    if len(images) < len(wanted):
        raise VideoError(f"{path}: only {number} frames decode, frame {max(wanted)} is wanted: {_ADVICE}")
    sizes = {f"{image.shape[1]}×{image.shape[0]}": None for image in images.values()}
    if len(sizes) > 1:
        raise VideoError(f"{path}: its frames change their size ({', '.join(sizes)} pixels): {_ADVICE}")
    return np.stack([images[index] for index in indices.tolist()])


def stamp(path: Path) -> tuple[int, int]:
    """Bytes of a file and when it was changed, in ns.

    Of a folder, the sums over its images, and over them and itself: so a frame that was overwritten shows, also by an
    older one. It costs one look at every image, some 2 µs on a local disk, and opens none.
    """
    status = path.stat()
    if not path.is_dir():
        return status.st_size, status.st_mtime_ns
    with os.scandir(path) as entries:
        found = [entry.stat() for entry in entries if is_image(entry.name)]
    return sum(one.st_size for one in found), status.st_mtime_ns + sum(one.st_mtime_ns for one in found)
