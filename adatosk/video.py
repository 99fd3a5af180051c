"""From a video file, or a folder of frames, to the frames of one clip.

Video files are decoded by decord where it is installed and by PyAV elsewhere, with the same frames: to the bit, but for
old codecs such as MPEG-4 part 2 whose transform leaves a pixel's last step (1 of 255) to the decoder. A reader
is opened where it is used, with one thread: one that crosses a fork hangs, and clips are what runs in parallel. What
cannot be read whole is an error; a clip is never silently shorter, and never replaced.
"""

import importlib.util
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np

from adatosk.containers import stated_bytes

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}
HAS_DECORD = importlib.util.find_spec("decord") is not None

# Containers without a frame count (mkv, webm, flv) mostly state how many bytes they have, and a duration, not always to
# the frame. Missing more than both of these means a cut file.
MISSING_SHARE, MISSING_SECONDS = 0.05, 0.25

# From this ratio on, images shrink by area. Below it OpenCV's bilinear filter skips no pixel and is four times as fast.
AREA_FROM = 1.5


class VideoError(ValueError):
    """A video file or frame folder that cannot be read whole; the message names it and says what to do."""


def read_clip(
    path: str | Path, frames: int = 16, stride: int = 4, start: int | None = None, size: int | None = None
) -> np.ndarray:
    """The sampled frames of one clip.

    Args:
        path: a video file, or a folder of images (jpg, png, bmp), sorted by the numbers in their names.
        frames, stride, start: see :func:`frame_indices`.
        size: side in pixels; each frame is cut to its central square and resized. ``None`` keeps frames as they are.

    Returns:
        uint8 ``(frames, H, W, 3)``, RGB.

    Raises:
        VideoError: a missing, empty, truncated or unreadable file, a folder without images, an unreadable image.
        ValueError: impossible sampling.
    """
    return read_frames(path, lambda length: frame_indices(length, frames, stride, start), size)


def frame_indices(length: int, frames: int = 16, stride: int = 4, start: int | None = None) -> np.ndarray:
    """Which frames of a clip are taken: ``start + stride · i`` for i = 0 … frames-1.

    They span ``(frames-1)·stride + 1`` frames. In a clip shorter than that they are spread evenly over the whole clip,
    from its first frame to its last: i·(length-1)/(frames-1), rounded half up. This is the largest (real-valued) stride
    that fits; with fewer frames than ``frames`` it repeats frames evenly in time, and never one of them alone.

    Args:
        length: frames in the clip, at least 1.
        frames, stride: at least 1.
        start: index of the first frame; ``None`` centres the span.

    Returns:
        int64 ``(frames,)``, never decreasing, in [0, length-1].

    Raises:
        ValueError: a number below 1, or a start from which the span leaves the clip.
    """
    for name, value in (("length", length), ("frames", frames), ("stride", stride)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")
    latest = last_start(length, frames, stride)
    if start is not None and not 0 <= start <= latest:
        raise ValueError(
            f"start={start}: {frames} frames at stride {stride} of a clip of {length} frames can start at 0 to {latest}"
        )
    steps = np.arange(frames, dtype=np.int64)
    if length < (frames - 1) * stride + 1:
        # Whole numbers throughout, so that no half is rounded by chance.
        return (2 * steps * (length - 1) + frames - 1) // (2 * (frames - 1))
    return (latest // 2 if start is None else start) + stride * steps


def last_start(length: int, frames: int, stride: int) -> int:
    """The largest ``start`` that :func:`frame_indices` takes; 0 for a clip that the span does not fit into."""
    return max(0, length - ((frames - 1) * stride + 1))


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
        images = image_paths(path)
        return _read_images([images[index] for index in choose(len(images))], size)
    length, plain = _probe(path)
    indices = np.asarray(choose(length), dtype=np.int64)
    images = _read_decord(path, indices) if HAS_DECORD and plain else None
    return _fit(_read_pyav(path, indices) if images is None else images, size)


def count_frames(path: str | Path) -> int:
    """Frames of a video file, by its packets and not its header, or images of a folder; errors as in `read_clip`."""
    path = _existing(path)
    return len(image_paths(path)) if path.is_dir() else _probe(path)[0]


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise VideoError(f"{path}: no such video file or folder of frames: check the root and the manifest")
    if path.is_file() and not path.stat().st_size:
        raise VideoError(f"{path}: the file is empty (0 bytes): fetch it again, or exclude the clip")
    return path


@dataclass
class _Packets:
    """What reading a file's packets tells about its video: all of them, those shown as frames, and the broken ones."""

    stated: int
    seconds: float
    end: float = 0.0
    packets: int = 0
    shown: int = 0
    broken: int = 0
    rotation: int | None = None


def _probe(path: Path) -> tuple[int, bool]:
    """Number of frames that will decode, and whether decord may show just those.

    decord can hang on broken files, shows repeated frames where an edit list drops some and fails on rotated video: so
    the packets are read, and one frame is decoded, with PyAV first: about 1 ms a clip.
    """
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise VideoError(f"{path}: no video in this file (only sound or text, or it is cut short): {_ADVICE}")
            found = _read_packets(container)
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
    return found.shown, found.shown == found.packets and not found.rotation


def _read_packets(container: av.container.InputContainer) -> _Packets:
    video = container.streams.video[0]
    video.codec_context.thread_count = 1
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
            if found.rotation is None and not found.broken:
                found.rotation = next((frame.rotation for frame in packet.decode()), None)
    return found


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
            container.streams.video[0].codec_context.thread_count = 1
            for number, frame in enumerate(container.decode(video=0), start=1):
                if number - 1 in wanted:
                    image = frame.to_ndarray(format="rgb24")
                    images[number - 1] = np.rot90(image, k=round(frame.rotation / 90)) if frame.rotation else image
                if len(images) == len(wanted):
                    break
    except (av.FFmpegError, OSError) as error:
        raise VideoError(f"{path}: decoding stops after {number} frames ({_reason(error)}): {_ADVICE}") from error
    if len(images) < len(wanted):
        raise VideoError(f"{path}: only {number} frames decode, frame {max(wanted)} is wanted: {_ADVICE}")
    return np.stack([images[index] for index in indices.tolist()])


def image_paths(folder: Path) -> list[Path]:
    """Images of a folder by the numbers in their names, so that 10.jpg follows 9.jpg; hidden files are left out."""
    images = [path for path in folder.iterdir() if _is_image(path.name)]
    if not images:
        kinds = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
        raise VideoError(f"{folder}: a folder without frames ({kinds}): extract it again, or exclude the clip")
    return sorted(images, key=natural_key)


def _is_image(name: str) -> bool:
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def stamp(path: Path) -> tuple[int, int]:
    """Bytes of a file and when it was changed, in ns.

    Of a folder, the sums over its images, and over them and itself: so a frame that was overwritten shows, also by an
    older one. It costs one look at every image, some 2 µs on a local disk, and opens none.
    """
    status = path.stat()
    if not path.is_dir():
        return status.st_size, status.st_mtime_ns
    with os.scandir(path) as entries:
        found = [entry.stat() for entry in entries if _is_image(entry.name)]
    return sum(one.st_size for one in found), status.st_mtime_ns + sum(one.st_mtime_ns for one in found)


def natural_key(path: Path) -> tuple:
    """Sorts ``2.jpg`` before ``10.jpg`` and ``010.jpg`` beside it."""
    parts = re.split(r"(\d+)", path.stem)
    # Odd places hold the digits. The name itself settles 1.jpg against 01.jpg.
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.name


def _read_images(paths: Sequence[Path], size: int | None) -> np.ndarray:
    """The images in this order; one that follows itself is decoded once."""
    first = _read_image(paths[0])
    height, width = first.shape[:2]
    if size is None:
        shape, shrink = (height, width), 1
    else:
        fits = [factor for factor in REDUCED if factor * size <= min(height, width)]
        shape, shrink = (size, size), max(fits, default=1)
    images = np.empty((len(paths), *shape, 3), np.uint8)
    for place, path in enumerate(paths):
        if place and path == paths[place - 1]:
            images[place] = images[place - 1]
            continue
        image = first if place == 0 and shrink == 1 else _read_image(path, first.shape, shrink)
        if size is None and image.shape != first.shape:
            raise VideoError(
                f"{path}: {image.shape[1]}×{image.shape[0]} pixels, but {paths[0].name} has {width}×{height}: "
                "frames of a clip must be of one size; extract them again, or read with a size"
            )
        # Each goes to its place while the processor still holds it.
        images[place] = _fit(image[None], size)[0]
    return images


def _read_image(path: Path, first: tuple[int, ...] = (), shrink: int = 1) -> np.ndarray:
    """The image; a JPEG of the ``first`` one's shape comes ``shrink`` times smaller, averaged as it is decoded."""
    data = path.read_bytes()
    # OpenCV fills what a cut file lacks with grey and says nothing, so the end marker is looked for first.
    if is_whole_image(data):
        pixels = np.frombuffer(data, np.uint8)
        if shrink > 1 and data[:2] == b"\xff\xd8":
            image = cv2.imdecode(pixels, REDUCED[shrink])
            if image is not None and image.shape[:2] == tuple(-(-side // shrink) for side in first[:2]):
                return image[..., ::-1]  # blue comes first
        image = cv2.imdecode(pixels, cv2.IMREAD_COLOR_RGB)
        if image is not None:
            return image
    raise VideoError(f"{path}: not an image that can be read whole: extract the frames again, or exclude the clip")


def is_whole_image(data: bytes) -> bool:
    """Whether an image file ends as its format wants it; padding and trailers up to 64 bytes are let pass."""
    if data[:2] == b"\xff\xd8":
        return b"\xff\xd9" in data.rstrip(b"\0")[-64:]
    if data[:4] == b"\x89PNG":
        return b"IEND" in data[-64:]
    if data[:2] == b"BM":
        return len(data) >= int.from_bytes(data[2:6], "little")
    return False


def _fit(images: np.ndarray, size: int | None) -> np.ndarray:
    """Central squares of ``(N, H, W, 3)``, resized to ``size``: by area from ``AREA_FROM`` on, else bilinearly."""
    if size is None:
        return images
    if size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    height, width = images.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    images = images[:, top : top + side, left : left + side]
    if side == size:
        return np.ascontiguousarray(images)
    how = cv2.INTER_AREA if side >= AREA_FROM * size else cv2.INTER_LINEAR
    fitted = np.empty((len(images), size, size, 3), np.uint8)
    for image, target in zip(images, fitted, strict=True):
        cv2.resize(np.ascontiguousarray(image), (size, size), dst=target, interpolation=how)
    return fitted
