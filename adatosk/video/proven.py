"""decord, for files on which it is proven correct, and the choice of a decoder.

In many formats, decord's random access silently returns the wrong frames, and it conceals damage. PyAV returns the
right frames in all of them, bit-identical to decord's where these are right, and is faster, since one colour converter
serves a whole clip. So decord is used only when requested, for comparison, and only for files on which it is proven
correct.
"""

import importlib.util
import os
from typing import TYPE_CHECKING

import numpy as np

from adatosk.video.files import MATROSKA, MP4, Packets
from adatosk.video.folders import VideoError
from adatosk.video.frames import Frames
from adatosk.video.orientation import AS_STORED, turn_of

if TYPE_CHECKING:
    from decord import VideoReader

HAS_DECORD = importlib.util.find_spec("decord") is not None
DECODERS = ("auto", "decord", "pyav")
VARIABLE = "ADATOSK_DECODER"


def chosen_decoder(decoder: str | None = None) -> str:
    """``pyav`` or ``decord``, from the argument or the variable ``ADATOSK_DECODER``; PyAV for ``auto`` or neither.

    Raises:
        ValueError: the name is unknown, or decord is not installed.
    """
    name = decoder or os.environ.get(VARIABLE) or "auto"
    if name not in DECODERS:
        raise ValueError(f"decoder '{name}': choose one of {', '.join(DECODERS)} ({VARIABLE} or decoder=)")
    if name == "decord" and not HAS_DECORD:
        raise ValueError(f"decoder 'decord' is not installed here: choose auto or pyav ({VARIABLE} or decoder=)")
    return "pyav" if name == "auto" else name


def read_decord(frames: Frames, indices: np.ndarray) -> np.ndarray:
    """Frames read with decord: uint8 ``(len(indices), H, W, 3)``, RGB.

    Raises:
        VideoError: decord is not proven correct for this file, or it fails, as on intact files of width 48.
    """
    import decord

    path, why = frames.file.path, unproven(frames)
    if not why:
        try:
            reader = decord.VideoReader(str(path), num_threads=1)
            if _counts_alike(reader, frames):
                return reader.get_batch(indices).asnumpy()
            why = "it counts other frames, or shows them at other times"
        except (decord.DECORDError, RuntimeError):
            why = "it cannot read it"
    raise VideoError(f"{path}: decord is not proven right for this file ({why}): choose auto or pyav ({VARIABLE})")


def _counts_alike(reader: "VideoReader", frames: Frames) -> bool:
    """Whether decord has the same frames and keyframes at the same times.

    It takes the times of some fragmented MP4s for others, and then returns neighbours of the frames asked for.
    """
    times = frames.times
    if times is None or len(reader) != len(times) or reader.get_key_indices() != frames.keyframes:
        return False
    seconds = (times - times[0]) * frames.file.packets.unit
    stated = reader.get_frame_timestamp(range(len(times)))[:, 0]
    # It rounds to 32 bits, which after hours is more than a millisecond.
    return bool(np.abs(stated - stated[0] - seconds).max() < np.diff(seconds).min(initial=1.0) / 4)


def unproven(frames: Frames) -> str:
    """Why decord may not read a file; empty if it may.

    It may if packets count the frames, the container is MP4 or Matroska or the codec has only independent packets or no
    open groups, every group of pictures is closed, and the first and the last keyframe have the same size, are not
    rotated, and have a colour format that both decoders convert alike.
    """
    packets, file = frames.file.packets, frames.file
    if file.times is None:
        return packets.unusual or "its packets do not tell its frames apart"
    if packets.streams > 1:
        return "several videos"  # decord chooses among them by its own rule
    if packets.codec == "h264" and packets.format not in (MP4, MATROSKA):
        return f"{packets.codec} in {packets.format}"
    if False in packets.shown:
        return "an edit list hides frames"
    if packets.open or not _closed(packets):
        return "groups of pictures refer to each other"
    return _other_pixels(frames)


def _closed(packets: Packets) -> bool:
    """Whether all frames of a group are shown after those of the previous group and before those of the next."""
    times = np.array(packets.times, dtype=np.int64)
    keys = np.flatnonzero(packets.keys)
    first_after = np.minimum.accumulate(times[::-1])[::-1][keys]
    last_before = np.maximum.accumulate(times)[keys[1:] - 1]
    return bool((first_after == times[keys]).all() and (last_before < times[keys[1:]]).all())


def _other_pixels(frames: Frames) -> str:
    """Why decord's pixels would differ from FFmpeg's; empty if they do not.

    decord does not rotate pictures, stretches those that change their size, and converts colours differently for more
    than 8 bits per component and in an odd last row.
    """
    ends = list(frames.decoded(sorted({frames.keyframes[0], frames.keyframes[-1]})))
    for frame in ends:
        if turn_of(frame) != AS_STORED:
            return "pictures are turned before they are shown"
        if (frame.height, frame.width) != (ends[0].height, ends[0].width):
            return "pictures change their size"
        if any(part.bits != 8 for part in frame.format.components) or frame.height % 2:
            return "pictures of odd height or of more than 8 bits a colour"
    return ""
