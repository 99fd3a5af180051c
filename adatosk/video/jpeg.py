"""JPEG images decoded in place: bit-identical to OpenCV's pixels, in four fifths of its time.

Both use libjpeg-turbo; this saves OpenCV's second pass over the colours and its copy. Only ordinary, intact images are
decoded here. Unusual ones are left to OpenCV; damaged ones are reported.
"""

import io
import re

import numpy as np
import simplejpeg
from PIL import Image

# Below 8 pixels, two of libjpeg's scales can give the same size; no frame of a clip has more than MOST_PIXELS.
LEAST_SIDE, MOST_PIXELS = 8, 2**28
# Webcams leave a few extraneous bytes before the end marker, which are harmless; damage leaves more.
_HARMLESS = re.compile(r"Corrupt JPEG data: [1-4] extraneous bytes before marker 0xd9")
_ORIENTATION = 0x112


def damage(data: bytes) -> str:
    """libjpeg's complaint about the pixels of a file; empty if there is none, or if it does not support the file.

    Decoders fill a hole with what follows it, and a missing end with grey, and only warn about it; OpenCV suppresses
    the warning.
    """
    try:
        colours = simplejpeg.decode_jpeg_header(data)[2]
        wanted = {"Gray": "GRAY", "CMYK": "CMYK", "YCCK": "CMYK"}.get(colours, "RGB")
        simplejpeg.decode_jpeg(data, wanted, min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        said = str(error)
        return said if said.startswith("Corrupt JPEG data") and not _HARMLESS.match(said) else ""
    return ""


def orientation(data: bytes) -> int:
    """EXIF's orientation, 1 to 8, from any marker; 1 if there is none. OpenCV considers the first marker only."""
    if b"Exif\0\0" not in data:
        return 1
    try:
        with Image.open(io.BytesIO(data)) as image:
            turned = image.getexif().get(_ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError):
        return 1
    return turned if turned in range(1, 9) else 1


def jpeg_head(data: bytes) -> tuple[bytes, tuple[int, int] | None]:
    """The bytes before the pixels of a file that :func:`decode_jpeg` supports, and the height and width they state.

    Supported are JPEGs with three channels stored as YCbCr and without EXIF, and so every file that begins with the
    head of one; for any other file the head is empty and the shape ``None``.
    """
    try:
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        height, width = int(height), int(width)
        # The last start of a scan: no pixels contain these two bytes, but another segment may.
        head = data[: data.rindex(b"\xff\xda")]
    except ValueError:
        return b"", None
    usual = colours == "YCbCr" and b"Exif\0\0" not in data
    taken = usual and min(height, width) >= LEAST_SIDE and height * width <= MOST_PIXELS
    return (head, (height, width)) if taken else (b"", None)


def decode_jpeg(data: bytes, out: np.ndarray) -> bool:
    """Decode a file that has a :func:`jpeg_head`, at full, half, a quarter or an eighth of its size.

    Args:
        data: the file's bytes.
        out: the output, uint8 ``(H, W, 3)``, RGB, contiguous; H and W are the image's, or those divided by 2, 4 or 8
            and rounded up, in which case pixels are averaged while decoding.

    Returns:
        whether the image was decoded into ``out``; false if libjpeg reports a problem or ``out`` has the wrong shape.
        The content of ``out`` is then undefined.
    """
    height, width = out.shape[:2]
    try:
        image = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, buffer=out)
    except ValueError:
        return False
    return image.shape == out.shape
