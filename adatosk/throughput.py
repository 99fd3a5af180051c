"""How fast clips are decoded, beside the plain way: ``python -m adatosk.throughput VIDEO_OR_FOLDER …``."""

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from adatosk.frame_folders import image_paths
from adatosk.video import frame_indices, read_clip


def plain_video(path: Path, size: int, frames: int = 16, stride: int = 4) -> np.ndarray:
    """Open, and seek each frame: uint8 ``(frames, size, size, 3)``."""
    capture = cv2.VideoCapture(str(path))
    length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    images = []
    for index in frame_indices(length, frames, stride):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(index))
        image = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
        images.append(cv2.resize(_central_square(image), (size, size), interpolation=cv2.INTER_AREA))
    capture.release()
    return np.stack(images)


def plain_folder(path: Path, size: int, frames: int = 16, stride: int = 4) -> np.ndarray:
    """List, and open each image: uint8 ``(frames, size, size, 3)``."""
    names = image_paths(path)
    images = []
    for index in frame_indices(len(names), frames, stride):
        with Image.open(names[index]) as image:
            square = Image.fromarray(_central_square(np.asarray(image.convert("RGB"))))
        images.append(np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(images)


def compare(paths: Sequence[str | Path], size: int = 112, repeats: int = 5) -> pd.DataFrame:
    """Clips per second and core of :func:`adatosk.video.read_clip` and of the plain way, 16 frames at stride 4.

    Returns:
        one row a clip: ``clip``, ``kind``, ``clips_per_second``, ``plain_clips_per_second`` and ``ratio``, of the
        fastest of ``repeats`` rounds by processor time, so that other work on the machine does not count.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    rows = []
    try:
        for path in map(Path, paths):
            kind, plain = ("folder", plain_folder) if path.is_dir() else ("video", plain_video)
            ways = partial(read_clip, size=size), partial(plain, size=size)
            ours, theirs = (1 / seconds for seconds in _fastest(ways, path, repeats))
            rows.append((path.name, kind, ours, theirs, ours / theirs))
    finally:
        cv2.setNumThreads(threads)
    return pd.DataFrame(rows, columns=["clip", "kind", "clips_per_second", "plain_clips_per_second", "ratio"])


def _fastest(ways: Sequence[Callable[[Path], np.ndarray]], path: Path, repeats: int) -> list[float]:
    """Seconds of processor time of each way of reading, in turns, after one round that fills the caches."""
    times = {way: [] for way in ways}
    for number in range(repeats + 1):
        for way, taken in times.items():
            start = time.process_time()
            way(path)
            if number:
                taken.append(time.process_time() - start)
    return [max(min(taken), 1e-9) for taken in times.values()]


def _central_square(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table for the clips named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="+", type=Path, help="video files or folders of frames")
    parser.add_argument("--size", type=int, default=112, help="side of the frames in pixels")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    print(compare(options.paths, options.size, options.repeats).round(2).to_string(index=False))


if __name__ == "__main__":
    main()
