"""Decoding speed compared with a plain implementation: ``adatosk benchmark --decoding [VIDEO_OR_FOLDER …]``.

Without arguments, it renders its own clips and writes ``results/benchmark/<device>-decode.csv``.
"""

import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import nan
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from adatosk.cost.models import RESULTS, write_table
from adatosk.synthetic import BENCHMARKS, encode, render, sample_script
from adatosk.utils.provenance import provenance
from adatosk.video import frame_indices, read_clip
from adatosk.video.folders import image_paths

# Stored side and the side that is read. DFEW's faces, in the folder clip_224x224, have 256 pixels a side: so says the
# public code of MAE-DFER, which reads them at 160 (github.com/sunlicai/MAE-DFER, issue 17). The paper reads at 224.
SIZES = ((224, 112), (224, 160), (224, 224), (256, 160), (256, 224), (320, 224))
# The default JPEG qualities of Pillow and of OpenCV, in percent.
QUALITIES = (75, 95)
CLIPS = 4  # of each kind and size


def plain_video(path: Path, size: int) -> np.ndarray:
    """Open, and seek each frame: uint8 ``(16, size, size, 3)``."""
    capture = cv2.VideoCapture(str(path))
    length = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    images = []
    for index in frame_indices(length):
        capture.set(cv2.CAP_PROP_POS_FRAMES, int(index))
        image = cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB)
        images.append(cv2.resize(_central_square(image), (size, size), interpolation=cv2.INTER_AREA))
    capture.release()
    return np.stack(images)


def plain_folder(path: Path, size: int) -> np.ndarray:
    """List, and open each image: uint8 ``(16, size, size, 3)``."""
    names = image_paths(path)
    images = []
    for index in frame_indices(len(names)):
        with Image.open(names[index]) as image:
            square = Image.fromarray(_central_square(np.asarray(image.convert("RGB"))))
        images.append(np.asarray(square.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(images)


def compare(paths: Sequence[str | Path], size: int = 112, repeats: int = 5) -> pd.DataFrame:
    """Clips per second and core of :func:`adatosk.video.read_clip` and of the plain way, 16 frames at stride 4.

    Returns:
        one row per clip: ``clip``, ``kind``, ``clips_per_second``, ``plain_clips_per_second`` and ``ratio``, of the
        fastest of ``repeats`` rounds by processor time, so that other work on the machine does not count.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    tables = []
    try:
        for kind, plain in (("video", plain_video), ("folder", plain_folder)):
            chosen = [path for path in map(Path, paths) if path.is_dir() == (kind == "folder")]
            ours, theirs = 1 / _fastest((partial(read_clip, size=size), partial(plain, size=size)), chosen, repeats)
            rates = {"clips_per_second": ours, "plain_clips_per_second": theirs, "ratio": ours / theirs}
            tables.append(pd.DataFrame({"clip": [path.name for path in chosen], "kind": kind, **rates}))
    finally:
        cv2.setNumThreads(threads)
    return pd.concat(tables, ignore_index=True)


def _fastest(ways: Sequence[Callable[[Path], np.ndarray]], paths: Sequence[Path], repeats: int) -> np.ndarray:
    """Seconds of processor time ``(ways, clips)``, after one round that fills the caches.

    In each round, each way in turn reads all clips, as a loader would; alternating after every clip would evict its
    code from the processor's cache.
    """
    times = np.empty((repeats + 1, len(ways), len(paths)))
    for taken in times:
        for way, row in zip(ways, taken, strict=True):
            for place, path in enumerate(paths):
                start = time.process_time()
                way(path)
                row[place] = time.process_time() - start
    return times[1:].min(axis=0).clip(min=1e-9)


def decode_table(repeats: int = 15) -> pd.DataFrame:
    """:func:`compare` on rendered faces in all ``SIZES``, as H.264 files and as JPEG images of all ``QUALITIES``.

    Returns:
        its rows with ``stored``, ``size``, ``quality`` (NaN for video files) and ``bytes`` of an image or of a video's
        frame on average, and the provenance.
    """
    tables = []
    for stored in dict.fromkeys(stored for stored, _ in SIZES):
        with tempfile.TemporaryDirectory() as folder:
            paths = {}
            for place in range(CLIPS):
                paths |= _write(place, stored, Path(folder))
            about = pd.DataFrame(
                [(p.name, q, _bytes(p)) for p, q in paths.items()], columns=["clip", "quality", "bytes"]
            )
            for size in (size for side, size in SIZES if side == stored):
                tables.append(compare(list(paths), size, repeats).assign(stored=stored, size=size).merge(about))
    return pd.concat(tables, ignore_index=True).assign(repeats=repeats, **provenance("cpu"))


def _write(place: int, side: int, root: Path) -> dict[Path, float]:
    """A test clip of the embedded benchmark, ``side`` pixels a side: the video and its folders, with their quality."""
    config = BENCHMARKS["embedded-demo"].model_copy(update={"size": side})
    frames, video = render(sample_script(config, "test", place), config), root / f"{place}.mp4"
    encode(frames, video)
    folders = {root / f"{place}-{quality}": quality for quality in QUALITIES}
    for folder, quality in folders.items():
        write_images(frames, folder, quality)
    return {video: nan, **folders}


def write_images(frames: np.ndarray, folder: Path, quality: int = 95) -> None:
    """Write RGB frames uint8 ``(T, H, W, 3)`` as JPEG images of a quality in percent, to a new folder."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, start=1):
        image = cv2.cvtColor(frame, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{number:04d}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def _bytes(path: Path) -> float:
    """Of one frame, on average."""
    if path.is_dir():
        return float(np.mean([image.stat().st_size for image in path.iterdir()]))
    return path.stat().st_size / cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FRAME_COUNT)


def _central_square(image: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return image[top : top + side, left : left + side]


def compare_named(paths: Sequence[Path], size: int = 112, repeats: int = 15) -> pd.DataFrame:
    """:func:`compare` for clips named by the user.

    Raises:
        VideoError: a clip cannot be read, which the plain way would report without naming it.
    """
    for path in paths:
        read_clip(path, size=size)
    return compare(paths, size, repeats).round(2)


def record(repeats: int = 15, folder: Path = RESULTS) -> Path:
    """Time decoding of rendered clips, print the medians and write the table; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)  # before the work
    table = decode_table(repeats=repeats)
    settings = table.groupby(["kind", "stored", "size", "quality"], dropna=False)
    print(settings[["clips_per_second", "ratio"]].median().round(2))
    return write_table(table, folder, "-decode")
