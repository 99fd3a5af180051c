"""Clips stored as folders of images, one per frame: finding the frames and reading their pixels.

Ordinary JPEGs are decoded in place by :mod:`adatosk.video.jpeg`, all other images by OpenCV, with the same pixels. An
image that cannot be read completely is an error.
"""

import os
import re
from collections.abc import Callable, Sequence
from itertools import groupby, pairwise, repeat
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from adatosk.video.jpeg import damage, decode_jpeg, jpeg_head, orientation
from adatosk.video.orientation import EXIF_TURNS, Turn, upright
from adatosk.video.resize import TOGETHER, TOGETHER_BYTES, fit

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
# Images that cannot be read as frames; among frames, they are probably frames, so ignoring them would be wrong.
OTHER_SUFFIXES = (".webp", ".tif", ".tiff", ".gif", ".avif", ".heic", ".heif", ".jp2", ".jxl", ".jfif", ".jpe", ".ppm")
OTHER_SUFFIXES += (".pgm", ".pnm", ".tga", ".exr", ".dib")
REDUCED = {2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4, 8: cv2.IMREAD_REDUCED_COLOR_8}

# Windows opens files in text mode by default; elsewhere, opening a pipe waits for whoever writes to it.
_READ_BYTES = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
_DIGITS = re.compile(r"(\d+)")


class VideoError(ValueError):
    """A video file or frame folder that cannot be read completely; the message names it and says what to do."""


class Like(NamedTuple):
    """An image of a clip, whose size the others must have.

    Attributes:
        path: the image.
        shape: its height and width, possibly with further sizes.
    """

    path: str
    shape: tuple[int, ...]

    def check(self, path: str, shape: tuple[int, ...]) -> None:
        """VideoError if the image at ``path``, of this shape, has another size."""
        (height, width), (found_height, found_width) = self.shape[:2], shape[:2]
        if (height, width) != (found_height, found_width):
            raise VideoError(
                f"{path}: {found_width}×{found_height} pixels, but {Path(self.path).name} has {width}×{height}: frames "
                "of a clip must be of one size; extract them again, or read with a size"
            )


def image_paths(folder: Path) -> list[Path]:
    """Images of a folder by the numbers in their names, so that 10.jpg follows 9.jpg; hidden files are left out.

    Raises:
        VideoError: there are none, images of another kind are among them, or two are of one number.
    """
    return [folder / name for name in image_names(folder)]


def image_names(folder: Path) -> list[str]:
    """The names only: few frames of most clips are read, and creating a path costs as much as listing it."""
    with os.scandir(folder) as entries:
        names = [entry.name for entry in entries]
    if _are_plain_numbers(names):
        return sorted(names)
    others = sorted(name for name in names if name.lower().endswith(OTHER_SUFFIXES) and not name.startswith("."))
    names = [name for name in names if is_image(name)]
    kinds = ", ".join(sorted(suffix[1:] for suffix in IMAGE_SUFFIXES))
    if others:
        raise VideoError(
            f"{folder}: {others[0]} is an image of a kind that is not read ({kinds}): convert or remove it"
        )
    if not names:
        raise VideoError(f"{folder}: a folder without frames ({kinds}): extract it again, or exclude the clip")
    found = sorted((_by_numbers(name.rpartition(".")[0], name) for name in names), key=itemgetter(0, 1))
    for (number, name), (next_number, other) in pairwise(found):
        if number == next_number:
            raise VideoError(f"{folder}: {name} and {other} are the same frame twice: remove one kind of them")
    return [name for _, name in found]


def _are_plain_numbers(names: list[str]) -> bool:
    """Whether all are images numbered with the same number of digits, as is usual; then sorting is much faster."""
    suffix = "." + names[0].rpartition(".")[2] if names else ""
    digits = "".join(names).replace(suffix, "")
    return (
        suffix in IMAGE_SUFFIXES
        and len(set(map(len, names))) == 1
        # Otherwise 12.jpg beside .jpg34 would pass.
        and all(map(str.endswith, names, repeat(suffix)))
        and len(digits) == len(names) * (len(names[0]) - len(suffix))
        and digits.isascii()
        and digits.isdecimal()
    )


def is_image(name: str) -> bool:
    """Whether a file of this name is a frame."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def natural_key(path: Path) -> tuple:
    """Sorts ``2.jpg`` before ``10.jpg`` and ``010.jpg`` beside it."""
    return _by_numbers(path.stem, path.name)


def _by_numbers(stem: str, name: str) -> tuple:
    parts: list[str | int] = ["", stem, ""] if stem.isdecimal() else _DIGITS.split(stem)
    # The digits are at odd positions. The name itself breaks the tie between 1.jpg and 01.jpg.
    parts[1::2] = map(int, parts[1::2])
    return parts, name


def read_images(
    paths: Sequence[str], size: int | None, empty: Callable[..., np.ndarray] = np.empty, like: Like | None = None
) -> np.ndarray:
    """The images in the given order; consecutive repetitions are decoded once.

    Beyond the result, the memory holds 8 MB of images, or one image if that takes more. An image other than an ordinary
    JPEG is held twice, because OpenCV hands over a copy of what it decodes.

    Args:
        empty: called as ``np.empty`` for the memory of the result, unless images are repeated.
        like: the image whose size the others must have if ``size`` is ``None``; by default the first of them.

    Returns:
        uint8 ``(len(paths), H, W, 3)``, RGB; ``size`` as in :func:`adatosk.video.read_clip`.

    Raises:
        VideoError: an image is cut short or unreadable, or of another size than the first and ``size`` is ``None``.
    """
    runs = [(path, len(list(run))) for path, run in groupby(paths)]
    if len(runs) == len(paths):
        return _read_distinct(paths, size, empty, like)
    images = _read_distinct([path for path, _ in runs], size, np.empty, like)
    return np.repeat(images, [length for _, length in runs], axis=0)


def _read_distinct(
    paths: Sequence[str], size: int | None, empty: Callable[..., np.ndarray], like: Like | None
) -> np.ndarray:
    data = _read_whole(paths[0])
    head, shape = jpeg_head(data)
    image = None
    if shape is None:
        image = _decode(paths[0], data)
        shape = image.shape[:2]
    like = like or Like(paths[0], shape)
    if size is None:
        like.check(paths[0], shape)
    shrink = 1 if size is None else max((by for by in REDUCED if by * size <= min(shape)), default=1)
    images = empty((len(paths), *(shape if size is None else (size, size)), 3), np.uint8)
    small = _shrunk(shape, shrink)
    in_place = images.shape[1:3] == small
    decoded = images if in_place else np.empty((len(in_groups(paths, shape)[0]), *small, 3), np.uint8)
    start = 0
    for some in in_groups(paths, shape):
        targets, others = images[start : start + len(some)], {}
        outs = targets if in_place else decoded
        for place, (path, out) in enumerate(zip(some, outs, strict=False)):
            data = _read_whole(path) if start + place else data
            # Most heads are identical to the first one's, byte by byte.
            alike = (head and data.startswith(head)) or jpeg_head(data)[1] == shape
            if alike and decode_jpeg(data, out):
                continue
            if image is None or shrink > 1:
                image = None  # released before the next one is decoded
                image = _decode(path, data, shape, shrink)
            if size is None:
                like.check(path, image.shape)
            others[place] = fit(image[None], size, targets[place : place + 1] if in_place else None)
            image = None
        if not in_place:
            fit(decoded[: len(targets)], size, targets)
            for place, fitted in others.items():
                targets[place] = fitted[0]
        start += len(some)
    return images


def in_groups(paths: Sequence[str], shape: tuple[int, ...]) -> list[Sequence[str]]:
    """Groups of consecutive images of this height and width, each as large as is held in memory at once."""
    together = max(1, min(TOGETHER, TOGETHER_BYTES // (shape[0] * shape[1] * 3)))
    return [paths[start : start + together] for start in range(0, len(paths), together)]


def _shrunk(shape: tuple[int, int], shrink: int) -> tuple[int, int]:
    return -(-shape[0] // shrink), -(-shape[1] // shrink)


def _read_whole(path: str) -> bytes:
    # Without a file object and its buffer, which cost as much as reading files as small as frames.
    try:
        file = os.open(path, _READ_BYTES)
        try:
            data = os.read(file, os.fstat(file).st_size)
        finally:
            os.close(file)
    except OSError as error:
        raise _unreadable(path, error.strerror) from error
    # Decoders silently fill the missing part of a truncated file with grey, so the end marker is checked first.
    if not is_whole_image(data):
        raise _unreadable(path)
    return data


def _unreadable(path: str, reason: str | None = None) -> VideoError:
    said = "not an image that can be read whole" + (f" ({reason})" if reason else "")
    return VideoError(f"{path}: {said}: extract the frames again, or exclude the clip")


def _decode(path: str, data: bytes, first: tuple[int, int] = (0, 0), shrink: int = 1) -> np.ndarray:
    """The image; a JPEG of the ``first`` one's shape is reduced by the factor ``shrink`` while it is decoded."""
    said = damage(data) if data.startswith(b"\xff\xd8") else ""
    if said:
        raise _unreadable(path, said)
    try:
        image = _by_opencv(data, first, shrink)
    except cv2.error as error:  # for example, because of an absurd size
        raise _unreadable(path, error.err) from error
    if image is None:
        raise _unreadable(path)
    return image


def _by_opencv(data: bytes, first: tuple[int, int], shrink: int) -> np.ndarray | None:
    pixels = np.frombuffer(data, np.uint8)
    if not data.startswith(b"\xff\xd8"):
        return cv2.imdecode(pixels, cv2.IMREAD_COLOR_RGB)
    turn = Turn(*EXIF_TURNS[orientation(data) - 1])
    if shrink > 1:
        image = cv2.imdecode(pixels, REDUCED[shrink] | cv2.IMREAD_IGNORE_ORIENTATION)
        if image is not None and upright(image, turn).shape[:2] == _shrunk(first, shrink):
            return upright(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), turn)
    image = cv2.imdecode(pixels, cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    return None if image is None else upright(image, turn)


def is_whole_image(data: bytes) -> bool:
    """Whether an image file ends as its format requires; padding and trailers of up to 64 bytes are accepted."""
    if data[:2] == b"\xff\xd8":
        return b"\xff\xd9" in data.rstrip(b"\0")[-64:]
    if data[:4] == b"\x89PNG":
        return b"IEND" in data[-64:]
    if data[:2] == b"BM":
        return len(data) >= int.from_bytes(data[2:6], "little")
    return False
