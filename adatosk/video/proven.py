"""decord, for the files that it is proven right for, and the choice of a decoder.

decord's random access gives other frames than asked for in many formats, and it conceals damage. PyAV gives the right
ones in all of them, to the bit where both do, and since one converter of colours serves a whole clip it takes less
time. So decord reads only where it is chosen, to compare the two, and only a file that it is proven right for.
"""

import importlib.util
import os

import numpy as np

from adatosk.video.decoders import Frames
from adatosk.video.files import MATROSKA, MP4, Packets
from adatosk.video.folders import VideoError
from adatosk.video.orientation import AS_STORED, turn_of

HAS_DECORD = importlib.util.find_spec("decord") is not None
DECODERS = ("auto", "decord", "pyav")
VARIABLE = "ADATOSK_DECODER"


def chosen_decoder(decoder: str | None = None) -> str:
    """``pyav`` or ``decord``: the argument, else the environment's ``ADATOSK_DECODER``; ``auto``, or none, is PyAV.

    Raises:
        ValueError: another name, or decord where it is not installed.
    """
    name = decoder or os.environ.get(VARIABLE) or "auto"
    if name not in DECODERS:
        raise ValueError(f"decoder '{name}': choose one of {', '.join(DECODERS)} ({VARIABLE} or decoder=)")
    if name == "decord" and not HAS_DECORD:
        raise ValueError(f"decoder 'decord' is not installed here: choose auto or pyav ({VARIABLE} or decoder=)")
    return "pyav" if name == "auto" else name


def read_decord(frames: Frames, indices: np.ndarray) -> np.ndarray:
    """Frames as decord reads them: uint8 ``(len(indices), H, W, 3)``, RGB.

    Raises:
        VideoError: it is not proven right for this file, or it fails, as it does on whole files of width 48.
    """
    import decord

    path, why = frames.file.path, unproven(frames)
    if not why:
        try:
            reader = decord.VideoReader(str(path), num_threads=1)
            if len(reader) == frames.count and reader.get_key_indices() == frames.keyframes:
                return reader.get_batch(indices).asnumpy()
            why = "it counts other frames"
        except (decord.DECORDError, RuntimeError):
            why = "it cannot read it"
    raise VideoError(f"{path}: decord is not proven right for this file ({why}): choose auto or pyav ({VARIABLE})")


def unproven(frames: Frames) -> str:
    """Why decord may not read a file; empty if it may.

    It may where packets count the frames, in MP4 and Matroska or of a codec whose every packet stands alone or that
    knows no open groups, every group of pictures is closed, and the pictures of the first and the last keyframe have
    one size, are not turned, and have colours that both convert alike.
    """
    packets, file = frames.file.packets, frames.file
    if file.times is None:
        return packets.unusual or "its packets do not tell its frames apart"
    if packets.streams > 1:
        return "several videos"  # decord chooses among them by a rule of its own
    if packets.codec == "h264" and packets.format not in (MP4, MATROSKA):
        return f"{packets.codec} in {packets.format}"
    if False in packets.shown:
        return "an edit list hides frames"
    if packets.open or not _closed(packets):
        return "groups of pictures refer to each other"
    return _other_pixels(frames)


def _closed(packets: Packets) -> bool:
    """Whether every frame of a group is shown after those of the group before, and before those of the next."""
    times = np.array(packets.times, dtype=np.int64)
    keys = np.flatnonzero(packets.keys)
    first_after = np.minimum.accumulate(times[::-1])[::-1][keys]
    last_before = np.maximum.accumulate(times)[keys[1:] - 1]
    return bool((first_after == times[keys]).all() and (last_before < times[keys[1:]]).all())


def _other_pixels(frames: Frames) -> str:
    """Why decord's pixels would not be FFmpeg's; empty if they are.

    It turns no picture, stretches those that change their size, and its converter of colours is another one where a
    pixel has more bits and on an odd last row.
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
