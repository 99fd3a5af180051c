"""From a video file, or a folder of frames, to the frames of one clip.

A clip that cannot be read completely is an error; no frames are left out, repeated or replaced instead. What a file
does not show cannot be found: :mod:`adatosk.video.containers` lists it. PyAV decodes video files; ``ADATOSK_DECODER``,
or the argument ``decoder``, may select decord for those on which it is proven correct.
"""

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np

from adatosk.video.files import inspect
from adatosk.video.folders import Like, VideoError, image_names, image_paths, in_groups, is_image, read_images
from adatosk.video.frames import Frames
from adatosk.video.proven import chosen_decoder, read_decord
from adatosk.video.resize import fit, stack
from adatosk.video.sampling import frame_indices

# Frames per second where nothing states them: that of the embedded benchmark.
FPS = 25.0


def read_clip(
    path: str | Path,
    frames: int = 16,
    stride: int = 4,
    start: int | None = None,
    size: int | None = None,
    decoder: str | None = None,
) -> np.ndarray:
    """The sampled frames of one clip.

    Args:
        path: a video file, or a folder of images (jpg, png, bmp), sorted by the numbers in their names.
        frames, stride, start: see :func:`adatosk.video.sampling.frame_indices`.
        size: side in pixels; each frame is cropped to its central square and resized. ``None`` keeps frames unchanged.
        decoder: for video files: ``auto`` and ``pyav`` use PyAV; ``decord`` uses decord, and refuses files on which it
            is not proven correct. By default the variable ``ADATOSK_DECODER``, or ``auto`` without it.

    Returns:
        uint8 ``(frames, H, W, 3)``, RGB.

    Raises:
        VideoError: the file is missing, empty, truncated, damaged or unreadable, the folder has no images or an
            unreadable one, or decord was requested and is not proven correct for the file.
        ValueError: the sampling is impossible, or the decoder unknown.
    """
    return read_frames(path, lambda length: frame_indices(length, frames, stride, start), size, decoder)


def decode_all(path: str | Path, size: int | None = None, decoder: str | None = None) -> np.ndarray:
    """All frames: uint8 ``(N, H, W, 3)``, RGB; ``size``, ``decoder`` and errors as in :func:`read_clip`."""
    return read_frames(path, np.arange, size, decoder)


def read_frames(
    path: str | Path,
    choose: Callable[[int], np.ndarray],
    size: int | None = None,
    decoder: str | None = None,
    empty: Callable[..., np.ndarray] = np.empty,
) -> np.ndarray:
    """The frames at the indices ``choose(number of frames)``, which must not decrease.

    Args:
        empty: called as ``np.empty`` for the memory of the result where a folder's images can be decoded into it.

    Returns:
        uint8 ``(len(indices), H, W, 3)``, RGB; ``size``, ``decoder`` and errors as in :func:`read_clip`.
    """
    path, decoder = _existing(path), chosen_decoder(decoder)
    if path.is_dir():
        names = image_names(path)
        return read_images([f"{path}{os.sep}{names[index]}" for index in choose(len(names))], size, empty)
    if size is not None and size < 1:
        raise ValueError(f"size must be at least 1 pixel, got {size}")
    frames = Frames(inspect(path))
    indices = np.asarray(choose(frames.count), dtype=np.int64)
    if decoder == "decord":
        return fit(read_decord(frames, indices), size)
    runs = [(number, len(list(run))) for number, run in groupby(indices.tolist())]
    images = stack(frames.images([number for number, _ in runs]), len(runs), size)
    return images if len(runs) == len(indices) else np.repeat(images, [length for _, length in runs], axis=0)


@dataclass(frozen=True, eq=False)
class Stream:
    """A video whose frames are read one after the other, in the memory of a few, however long it is.

    Attributes:
        seconds: when each frame is shown, float ``(N,)``; the first one at 0.
        images: ``images(numbers)`` yields the frames at increasing indices, uint8 ``(H, W, 3)``, RGB; each is valid
            only until the next one. `VideoError` if one is damaged, or of another size than the others.
    """

    seconds: np.ndarray
    images: Callable[[Sequence[int]], Iterator[np.ndarray]]

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.seconds)


def open_stream(path: str | Path, fps: float = FPS) -> Stream:
    """Open a video file, which PyAV decodes, or a folder of images.

    Args:
        fps: frames per second of a folder, and of a file that does not state when its frames are shown.

    Raises:
        VideoError: as in :func:`read_clip`.
        ValueError: for an impossible ``fps``.
    """
    if not 0 < fps < np.inf:
        raise ValueError(f"fps must be positive, got {fps}")
    path = _existing(path)
    if path.is_dir():
        paths = [f"{path}{os.sep}{name}" for name in image_names(path)]
        return Stream(np.arange(len(paths)) / fps, lambda numbers: _images([paths[number] for number in numbers]))
    frames = Frames(inspect(path))
    packets = frames.file.packets
    if frames.times is None or not packets.unit:
        return Stream(np.arange(frames.count) / (packets.rate or fps), frames.images)
    return Stream((frames.times - frames.times[0]) * packets.unit, frames.images)


def _images(paths: list[str]) -> Iterator[np.ndarray]:
    images = read_images(paths[:1], None)
    like = Like(paths[0], images.shape[1:])
    yield images[0]
    for some in in_groups(paths[1:], like.shape[:2]):
        del images
        images = read_images(some, None, like=like)
        yield from images


def count_frames(path: str | Path) -> int:
    """Number of frames of a video file that decode, or of images in a folder; errors as in :func:`read_clip`."""
    return open_stream(path).count


def decode_whole(path: str | Path) -> tuple[int, int, int]:
    """Decode a video file or a folder of images from end to end, in little memory, without keeping the frames.

    Returns:
        number of frames, and width and height of the first.

    Raises:
        VideoError: it is damaged, truncated or unreadable.
    """
    path, height, width = _existing(path), 0, 0
    if path.is_file():
        frames = Frames(inspect(path), thorough=True)
        height, width = frames.decode_all()
        return frames.count, width, height
    stream = open_stream(path)
    for image in stream.images(range(stream.count)):
        height, width = image.shape[:2]
        del image
    return stream.count, width, height


def _existing(path: str | Path) -> Path:
    path = Path(path)
    if not path.exists():
        raise VideoError(f"{path}: no such video file or folder of frames: check the root and the manifest")
    if path.is_dir():
        return path
    if not path.is_file():  # it would be waited for, or never end
        raise VideoError(f"{path}: not a video that can be read (a pipe, socket or device): save it as a file")
    if not path.stat().st_size:
        raise VideoError(f"{path}: the file is empty (0 bytes): fetch it again, or exclude the clip")
    return path


def stamp(path: Path) -> tuple[int, int]:
    """Size of a file in bytes and its modification time in ns.

    For a folder, the sum of its images' sizes, and the sum of their modification times and its own, so that overwriting
    a frame is detected, even with an older one. It takes about 2 µs per image on a local disk and opens none.
    """
    status = path.stat()
    if not path.is_dir():
        return status.st_size, status.st_mtime_ns
    with os.scandir(path) as entries:
        found = [entry.stat() for entry in entries if is_image(entry.name)]
    return sum(one.st_size for one in found), status.st_mtime_ns + sum(one.st_mtime_ns for one in found)


def content(path: Path) -> tuple[int, str]:
    """Size in bytes and BLAKE2 digest of a file, or of a folder's images one after the other."""
    digest, size = hashlib.blake2b(digest_size=16), 0
    for part in image_paths(path) if path.is_dir() else [path]:
        with part.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
                size += len(block)
    return size, digest.hexdigest()
