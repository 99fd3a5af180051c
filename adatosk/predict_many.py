"""Name the expression in many videos: ``python -m adatosk.predict_many FOLDER --model FOLDER --out FILE.csv``."""

import argparse
import os
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from adatosk.clips import normalise
from adatosk.clips.faces import FaceNotFoundError, check_person, face_in, load_detector
from adatosk.config import ModelConfig
from adatosk.datasets.base import VIDEO_SUFFIXES
from adatosk.export import Classifier, fixed_masks
from adatosk.model import AdaTosk
from adatosk.onednn import for_inference
from adatosk.predict import PRECISIONS, as_seen, load_model
from adatosk.utils.files import write_csv
from adatosk.utils.parallel import available_cores, in_chunks
from adatosk.video import VideoError, read_clip
from adatosk.video.folders import natural_key


def find_videos(folder: str | Path) -> list[Path]:
    """Video files in a folder and, where it holds none, its folders of frames; sorted as people count.

    Raises:
        FileNotFoundError: when there are none.
    """
    entries = _entries(folder)
    files = [path for path in entries if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
    found = files or [path for path in entries if path.is_dir()]
    if not found:
        raise FileNotFoundError(f"{folder}: holds neither video files nor folders of frames")
    return found


def _entries(folder: str | Path) -> list[Path]:
    """What a folder shows, sorted as people count."""
    return sorted((path for path in Path(folder).iterdir() if not path.name.startswith(".")), key=natural_key)


def predict_many(
    paths: Sequence[str | Path] | str | Path,
    model: AdaTosk | str | Path,
    batch_size: int = 8,
    precision: str = "fp32",
    compile: bool = False,
    views: int = 1,
    locate_face: bool = True,
    stride: int = 4,
    workers: int | None = None,
    person: int = 1,
) -> pd.DataFrame:
    """Classify one clip of each video, in batches; the decoder does not run, and the next videos are read meanwhile.

    Every clip is seen under the same hard masks, those of :func:`adatosk.predict.predict`, so its scores do not depend
    on its batch.

    Args:
        paths: videos, or a folder of them, see :func:`find_videos`.
        model, locate_face, stride, person: as for :func:`adatosk.predict.predict`.
        batch_size: clips at once.
        precision: ``fp32`` or ``bf16``; weights are converted once.
        compile: through ``torch.compile``, for a GPU; on a CPU it is slower than the packed weights used without it.
        views: hard masks that are averaged.
        workers: threads that read; ``None`` takes one a core.

    Returns:
        one row a video, in the order given: ``path``, ``label``, a column of probabilities for each class, ``face``,
        which says how many people were seen and whose face was used (empty if not looked for), and ``error``: empty, or
        why this video has no label, be it unreadable or without a face.

    Raises:
        FaceDetectorError: as for :func:`adatosk.predict.predict`.
        FileNotFoundError, ValueError: for the model, the folder, a precision or size that there is not.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision '{precision}': choose {', '.join(PRECISIONS)}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    check_person(person)
    if locate_face:
        load_detector()  # tried, since without it no video has a label
    paths = find_videos(paths) if isinstance(paths, str | Path) else list(map(Path, paths))
    model = model if isinstance(model, AdaTosk) else load_model(model)
    config, classify = model.config, _classifier(model, views, PRECISIONS[precision], compile)
    read, rows = partial(_read, config=config, person=person if locate_face else None, stride=stride), []
    clips = _ahead(paths, read, available_cores() if workers is None else workers, 2 * batch_size)
    for chunk in in_chunks(paths, batch_size):
        found = [next(clips) for _ in chunk]
        rows += _rows(chunk, found, classify, batch_size if compile else None, config)
    return pd.DataFrame(rows, columns=["path", "label", *config.classes, "face", "error"])


def _classifier(model: AdaTosk, views: int, dtype: torch.dtype, compile: bool) -> Callable[[Tensor], Tensor]:
    """From uint8 ``(B, T, C, size, size)`` to probabilities ``(B, classes)`` on the CPU; the model stays as it is."""
    classifier, device = Classifier(model, fixed_masks(model, views)), model.mask_token.device
    run = torch.compile(classifier.to(dtype)) if compile else for_inference(classifier, dtype)

    def classify(video: Tensor) -> Tensor:
        video = normalise(video.to(device).transpose(1, 2)).to(dtype)  # (B, C, T, H, W)
        with torch.inference_mode():
            return run(video).float().softmax(dim=1).cpu()

    return classify


@dataclass(frozen=True, eq=False)
class _Clip:
    """A clip as the model sees it, uint8 ``(T, C, size, size)``, and whose face that is."""

    video: Tensor
    face: str


def _read(path: Path, config: ModelConfig, person: int | None, stride: int) -> _Clip | str:
    """The clip, cut to the face of a person if one is given, or what is wrong with it."""
    try:
        frames = read_clip(path, config.frames, stride)
        face = None if person is None else face_in(path, frames, person)
        return _Clip(as_seen(frames, face, config.image_size), "" if face is None else str(face))
    except (VideoError, FaceNotFoundError) as error:
        return str(error)
    except Exception as error:  # of whatever kind: one clip must not cost the rows of all others
        return f"{path}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())})"


def _ahead(paths: Sequence[Path], read: Callable, workers: int, ahead: int) -> Iterator[_Clip | str]:
    """``read`` of each path in order, by threads that are at most ``ahead`` videos before what was taken."""
    with ThreadPoolExecutor(max(1, workers)) as pool:
        waiting: deque = deque()
        for path in paths:
            waiting.append(pool.submit(read, path))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _rows(
    paths: Sequence[Path], found: Sequence[_Clip | str], classify: Callable, pad: int | None, config: ModelConfig
) -> list[dict]:
    """Rows of one batch; ``pad`` fills it up to one size, since a compiled model is compiled anew for another."""
    videos = [clip.video for clip in found if isinstance(clip, _Clip)]
    filled = videos + videos[-1:] * (pad - len(videos) if pad else 0)
    scores = iter(classify(torch.stack(filled)).numpy() if videos else ())
    rows = []
    for path, clip in zip(paths, found, strict=True):
        row = {"path": str(path), "face": "", "error": clip if isinstance(clip, str) else ""}
        if isinstance(clip, _Clip):
            probabilities: np.ndarray = next(scores)
            row |= {"label": config.classes[probabilities.argmax()], "face": clip.face}
            row |= dict(zip(config.classes, probabilities.tolist(), strict=True))
        rows.append(row)
    return rows


def _is_ordinary(path: Path) -> bool:
    """Whether a file can take the place of ``path``; not that of a device, a pipe or a link such as /dev/stdout."""
    return not path.exists() or (path.is_file() and not path.is_symlink())


def check_target(path: Path) -> None:
    """Raise an `OSError` that names the file, where no table can be written; folders on the way are made."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder; name a file in it, such as {path / 'labels.csv'}")
    if path.exists() and not os.access(path, os.W_OK):
        raise PermissionError(f"{path}: write-protected; name another file")
    if not _is_ordinary(path):
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()  # tried, since permissions alone do not tell
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror}); name another file") from error


def _write(path: Path, table: pd.DataFrame) -> None:
    """The table as CSV; bytes of file names that are no UTF-8 are written as ``\\udcXX``."""
    write = partial(write_csv, path, table) if _is_ordinary(path) else partial(table.to_csv, path)
    write(index=False, float_format="%.4f", errors="backslashreplace")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m adatosk.predict_many", description=__doc__)
    parser.add_argument("videos", type=Path, nargs="+", help="one folder of videos, or videos")
    parser.add_argument(
        "--model", type=Path, required=True, help="folder of a model, such as runs/<id>/checkpoints/last"
    )
    parser.add_argument("--out", type=Path, required=True, help="table to write, CSV")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32")
    parser.add_argument("--compile", action="store_true", help="for a GPU; slower on a CPU")
    parser.add_argument("--views", type=int, default=1, help="hard masks that are averaged")
    parser.add_argument("--whole-frame", action="store_true", help="do not look for faces: the clips are cropped")
    return parser


def _tell(table: pd.DataFrame, others: Sequence[Path], out: Path) -> int:
    """Print what has no label and what was passed over; returns the number of videos without a label."""
    failed = table[table["error"] != ""]
    for row in failed.itertuples():
        print(f"no label: {row.error}", file=sys.stderr)
    if others:
        names = ", ".join(path.name for path in others[:5]) + (", …" if len(others) > 5 else "")
        print(f"passed over, {len(others)} beside the videos: {names}", file=sys.stderr)
    print(f"{out}: {len(table) - len(failed)} of {len(table)} videos")
    return len(failed)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns 1 when nothing could be done or a video has no label."""
    chosen = _parser().parse_args(arguments)
    paths, others = chosen.videos, []
    try:
        check_target(chosen.out)  # before the work that it would cost
        if len(paths) == 1 and paths[0].is_dir():
            entries, paths = _entries(paths[0]), find_videos(paths[0])
            others = sorted(set(entries) - set(paths), key=natural_key)
        table = predict_many(
            paths,
            chosen.model,
            chosen.batch_size,
            chosen.precision,
            chosen.compile,
            chosen.views,
            not chosen.whole_frame,
        )
        _write(chosen.out, table)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return int(_tell(table, others, chosen.out) > 0)


if __name__ == "__main__":
    sys.exit(main())
