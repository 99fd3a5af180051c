"""JPEG images decoded straight into their place: OpenCV's pixels to the bit, in four fifths of its time.

libjpeg-turbo does the work either way; what falls away is OpenCV's second pass over the colours and its copy. Only
ordinary, sound images are taken. What is unusual is left to OpenCV; what is damaged is told.
"""

import io
import re

import numpy as np
import simplejpeg
from PIL import Image

# Under 8 pixels two of libjpeg's scales can give one size; nothing above so many pixels is a frame of a clip.
LEAST_SIDE, MOST_PIXELS = 8, 2**26
# What stands before the pixels of usual images: frames coded by Huffman, tables, restarts, comments, and what
# applications add but for EXIF, which may turn the image.
_EXIF, _PIXELS = 0xE1, 0xDA
_USUAL = {0xC0, 0xC1, 0xC2, 0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)} - {_EXIF}


# Webcams leave a byte or two before the end mark; a hole leaves more, and less than libjpeg's others.
_HARMLESS = re.compile(r"Corrupt JPEG data: [1-4] extraneous bytes before marker 0xd9")
_ORIENTATION = 0x112


def damage(data: bytes) -> str:
    """What libjpeg says against the pixels of a file; empty if nothing, or if it does not read such files at all.

    Decoders fill a hole with what comes next, and the end with grey, and say it in a warning that OpenCV drops.
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
    """EXIF's orientation, 1 to 8, wherever it stands; 1 where there is none. OpenCV looks at the first marker only."""
    if b"Exif\0\0" not in data:
        return 1
    try:
        with Image.open(io.BytesIO(data)) as image:
            turned = image.getexif().get(_ORIENTATION, 1)
    except (OSError, ValueError, SyntaxError):
        return 1
    return turned if turned in range(1, 9) else 1


def jpeg_head(data: bytes) -> tuple[bytes, tuple[int, int] | None]:
    """What stands before the pixels of a file that :func:`decode_jpeg` takes, and the height and width it states.

    It takes JPEGs with three channels stored as YCbCr and without EXIF, and so every file that begins with the head of
    one; of any other the head is empty and the shape ``None``.
    """
    try:
        head = data[: _pixels_at(data)]
        height, width, colours, _ = simplejpeg.decode_jpeg_header(data)
        height, width = int(height), int(width)
    except (IndexError, ValueError):
        return b"", None
    taken = colours == "YCbCr" and min(height, width) >= LEAST_SIDE and height * width <= MOST_PIXELS
    return (head, (height, width)) if taken else (b"", None)


def _pixels_at(data: bytes) -> int:
    """Where the pixels of a usual file begin; ValueError of an unusual one, IndexError if the file ends before them."""
    if not data.startswith(b"\xff\xd8"):
        raise ValueError("not a JPEG")
    place = 2
    # To search for EXIF's marker takes 20 times as long: most bytes are pixels.
    while (marker := data[place + 1]) != _PIXELS:
        if data[place] != 0xFF or marker not in _USUAL:
            raise ValueError("an unusual JPEG")
        place += 2 + (data[place + 2] << 8 | data[place + 3])
    if data[place] != 0xFF:
        raise ValueError("not a JPEG")
    return place + 2


def decode_jpeg(data: bytes, out: np.ndarray) -> bool:
    """Decode a file that has a :func:`jpeg_head`, whole or at a half, a quarter or an eighth of its size.

    Args:
        data: the file.
        out: is filled: uint8 ``(H, W, 3)``, RGB, contiguous; H and W are the image's, or those divided by 2, 4 or 8 and
            rounded up, which averages pixels as they are decoded.

    Returns:
        whether the image is in ``out``; not if libjpeg has anything to say against the file or ``out`` has another
        shape. What ``out`` holds is undefined then.
    """
    height, width = out.shape[:2]
    try:
        image = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, buffer=out)
    except ValueError:
        return False
    return image.shape == out.shape
