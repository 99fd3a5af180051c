"""Small clips for tests: frames that differ from each other, written as H.264 files or as folders of images."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


def moving_frames(count: int = 24, height: int = 48, width: int = 64, seed: int = 0) -> np.ndarray:
    """uint8 ``(count, height, width, 3)``: a coloured square on a gradient; every frame and every seed differs."""
    generator = np.random.default_rng(seed)
    down, across = np.mgrid[0:height, 0:width]
    base = np.stack([down * 2, across * 2, down + across], axis=-1) % 256
    colour = generator.integers(0, 256, 3)
    frames = np.repeat(((base + generator.integers(0, 64)) % 256)[None], count, axis=0).astype(np.uint8)
    side = max(4, height // 3)
    for index, frame in enumerate(frames):
        top, left = (3 * index + 5 * seed) % (height - side + 1), (5 * index + 3 * seed) % (width - side + 1)
        frame[top : top + side, left : left + side] = colour
        # A brightness step tells apart frames at which the square happens to stand in the same place.
        frame[: height // 6] = (index * 9) % 256
    return frames


def write_video(
    path: Path, frames: np.ndarray, fps: int = 25, faststart: bool = False, codec: str = "libx264", gop: int = 12
) -> Path:
    """Write RGB ``frames`` (N, H, W, 3); ``faststart`` puts the mp4's index before its frames, not behind them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"movflags": "faststart"} if faststart else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=Fraction(fps))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.gop_size = gop
        if codec == "libx264":
            stream.options = {"crf": "18", "preset": "ultrafast", "threads": "1"}
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode(None))
    return path


def write_frames(folder: Path, frames: np.ndarray, suffix: str = ".png", first: int = 1, digits: int = 0) -> Path:
    """Write RGB ``frames`` as ``1.png``, ``2.png``, …; ``digits`` pads the numbers with zeros."""
    folder.mkdir(parents=True, exist_ok=True)
    for index, frame in enumerate(frames, start=first):
        if not cv2.imwrite(str(folder / f"{index:0{digits}d}{suffix}"), frame[..., ::-1]):
            raise OSError(f"{folder}: cannot write {suffix} images")
    return folder


def truncate(path: Path, share: float) -> Path:
    """Cut the file to ``share`` of its bytes."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def packets_of(path: Path) -> list[av.Packet]:
    """Packets of a file's video, in the order of decoding."""
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]
