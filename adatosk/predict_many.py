"""Classify the expression in many videos: ``adatosk predict FOLDER --model FOLDER --out FILE.csv``.

Rows are collected in ``FILE.csv.part`` until the table is complete. Whatever stops the command, they are kept, and the
same command resumes with the videos that have no label yet.
"""

if __name__ == "__main__":  # before the imports, which take seconds: Ctrl-C is quiet during these, too
    from adatosk.utils.door import run_command

    run_command("predict")

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

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
from adatosk.predict import as_seen, dtype_of, load_model
from adatosk.utils.devices import run_device
from adatosk.utils.files import check_target, is_ordinary, locked_table, replacing
from adatosk.utils.parallel import in_chunks, side_by_side
from adatosk.utils.provenance import file_digest
from adatosk.utils.tables import defused
from adatosk.video import VideoError, read_clip
from adatosk.video.folders import is_image, natural_key
from adatosk.video.reading import stamp


def find_videos(folder: str | Path) -> list[Path]:
    """Video files in a folder or, if it contains none, its folders of frames; in natural order.

    Raises:
        FileNotFoundError: when there are none.
    """
    entries = _entries(folder)
    files = [path for path in entries if path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()]
    found = files or [path for path in entries if path.is_dir()]
    if not found:
        raise FileNotFoundError(f"{folder}: holds neither video files nor folders of frames")
    return found


def expand(paths: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """The videos among ``paths`` and in the folders there, and the other entries of these folders, which are skipped.

    A folder that contains images and no video file is itself a video.

    Raises:
        FileNotFoundError: a folder contains neither video files nor folders of frames.
    """
    videos: list[Path] = []
    others: list[Path] = []
    for path in paths:
        if not path.is_dir() or is_clip(path):
            videos.append(path)
            continue
        found = find_videos(path)
        videos += found
        others += sorted(set(_entries(path)) - set(found), key=natural_key)
    return videos, others


def is_clip(folder: Path) -> bool:
    """Whether a folder is a video stored as frames: it contains images, and no video file."""
    entries = _entries(folder)
    return any(is_image(path.name) for path in entries) and not any(
        path.suffix.lower() in VIDEO_SUFFIXES for path in entries
    )


def _entries(folder: str | Path) -> list[Path]:
    """A folder's entries that are not hidden, in natural order."""
    return sorted((path for path in Path(folder).iterdir() if not path.name.startswith(".")), key=natural_key)


def predict_many(
    paths: Sequence[str | Path] | str | Path,
    model: AdaTosk | str | Path,
    device: torch.device | str | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Classify one clip of each video, in batches; the decoder does not run, and the next videos are read meanwhile.

    Every clip is seen under the same hard masks, those of :func:`adatosk.predict.predict`, so its scores do not depend
    on its batch.

    Args:
        paths: videos, or a folder of them, see :func:`find_videos`.
        model, device: as for :func:`adatosk.predict.predict`.
        **options: ``batch_size``, ``precision``, ``compile``, ``views``, ``locate_face``, ``stride``, ``workers`` and
            ``person`` of :func:`predict_rows`.

    Returns:
        one row per video, in the order given: ``path``, ``label``, a column of probabilities for each class, called
        ``class path`` if the class is called ``path``, ``face``, which says how many people were seen and whose face
        was used (empty if not looked for), and ``error``: empty, or why the video has no label.

    Raises:
        FaceDetectorError: as for :func:`adatosk.predict.predict`.
        FileNotFoundError, ValueError: for an invalid model, folder, precision or batch size.
    """
    videos = find_videos(paths) if isinstance(paths, str | Path) else [Path(path) for path in paths]
    model = model if isinstance(model, AdaTosk) else load_model(model, run_device(device))
    rows = [row for batch in predict_rows(videos, model, **options) for row in batch]
    return pd.DataFrame(rows, columns=columns_of(model))


def columns_of(model: AdaTosk) -> list[str]:
    """Names of the columns that :func:`predict_many` returns."""
    return ["path", "label", *map(_column_of, model.config.classes), "face", "error"]


def _column_of(name: str) -> str:
    """The column of a class, other than the table's other columns."""
    return f"class {name}" if name in ("path", "label", "face", "error", "stamp") else name


def predict_rows(
    paths: Sequence[Path],
    model: AdaTosk,
    batch_size: int = 8,
    precision: str = "fp32",
    compile: bool = False,
    views: int = 1,
    locate_face: bool = True,
    stride: int = 4,
    workers: int | None = None,
    person: int = 1,
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of :func:`predict_many` batch by batch, with the same errors.

    Args:
        batch_size: clips per batch.
        precision: ``fp32`` or ``bf16``; weights are converted once.
        compile: use ``torch.compile``, for a GPU; on a CPU it is slower than the packed weights used otherwise.
        views: number of hard masks to average over.
        locate_face, stride, person: as for :func:`adatosk.predict.predict`.
        workers: reader threads; one per core by default.
    """
    dtype = dtype_of(precision)
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    check_person(person)
    if locate_face:
        load_detector()  # tried, since without it no video has a label
    classify = _classifier(model, views, dtype, compile)
    read = partial(_read, config=model.config, person=person if locate_face else None, stride=stride)
    with side_by_side(workers, progress=False) as each:
        clips = each(read, in_chunks(paths, 1), ahead=2 * batch_size)
        for chunk in in_chunks(paths, batch_size):
            found = [clip for _, clip in islice(clips, len(chunk))]
            yield _rows(chunk, found, classify, batch_size if compile else None, model.config)


def _classifier(model: AdaTosk, views: int, dtype: torch.dtype, compile: bool) -> Callable[[Tensor], Tensor]:
    """Maps uint8 ``(B, T, C, size, size)`` to probabilities ``(B, classes)`` on the CPU; leaves the model unchanged."""
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


def _read(paths: Sequence[Path], config: ModelConfig, person: int | None, stride: int) -> _Clip | str:
    """The clip of one path, cut to the face of a person if one is given, or what is wrong with it."""
    (path,) = paths
    try:
        frames = read_clip(path, config.frames, stride)
        face = None if person is None else face_in(path, frames, person)
        return _Clip(as_seen(frames, face, config.image_size), "" if face is None else str(face))
    except (VideoError, FaceNotFoundError) as error:
        return str(error)
    except Exception as error:  # of any kind: one clip must not cost the rows of all others
        return f"{path}: cannot be read ({type(error).__name__}: {' '.join(str(error).split())})"


def _rows(
    paths: Sequence[Path], found: Sequence[_Clip | str], classify: Callable, pad: int | None, config: ModelConfig
) -> list[dict]:
    """Rows of one batch; it is padded to ``pad`` clips, because another batch size would recompile a compiled model."""
    videos = [clip.video for clip in found if isinstance(clip, _Clip)]
    filled = videos + videos[-1:] * (pad - len(videos) if pad else 0)
    scores = iter(classify(torch.stack(filled)).numpy() if videos else ())
    rows = []
    for path, clip in zip(paths, found, strict=True):
        row = {"path": str(path), "face": "", "error": clip if isinstance(clip, str) else ""}
        if isinstance(clip, _Clip):
            probabilities: np.ndarray = next(scores)
            row |= {"label": config.classes[probabilities.argmax()], "face": clip.face}
            row |= dict(zip(map(_column_of, config.classes), probabilities.tolist(), strict=True))
        rows.append(row)
    return rows


def part_of(out: Path) -> Path:
    """Where the rows of a table are collected until it is complete."""
    return out.with_name(out.name + ".part")


def predict_into(
    out: str | Path,
    paths: Sequence[str | Path],
    model: str | Path,
    report: Callable[[str], None] = print,
    device: torch.device | str | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Write :func:`predict_many`'s table to a CSV file; whatever stops it, finished rows are kept for the next call.

    Meanwhile they are collected in :func:`part_of` the file, below a line with the model's digest and the options. On
    resuming, videos without a label and those whose file has changed are read again. A pipe or device receives rows
    batch by batch and cannot be resumed. A second process with the same file waits for the first.

    Args:
        out: the file; an existing one is replaced once the table is complete.
        paths: videos, see :func:`expand`.
        model: the model's folder.
        report: called with one line when resuming.
        device: where the model runs, see :func:`adatosk.utils.devices.run_device`.
        **options: those of :func:`predict_many`.

    Raises:
        FileNotFoundError, ValueError: see :func:`predict_many`; or existing rows are from another model or options.
        OSError: the table cannot be written.
    """
    out, paths = Path(out), list(map(Path, paths))
    check_target(out, "labels.csv")  # before the model is loaded
    loaded = load_model(model, run_device(device))
    columns = columns_of(loaded)
    if not is_ordinary(out):
        with out.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
            rows: list[dict] = []
            for batch in predict_rows(paths, loaded, **options):
                _as_csv(pd.DataFrame(batch, columns=columns), file, header=not rows)
                file.flush()
                rows += batch
        return pd.DataFrame(rows, columns=columns)
    with locked_table(out, report):
        return _collect(out, paths, model, loaded, report, **options)


def _collect(
    out: Path, paths: Sequence[Path], model: str | Path, loaded: AdaTosk, report: Callable[[str], None], **options: Any
) -> pd.DataFrame:
    """:func:`predict_into` an ordinary file, which is locked."""
    columns, rows_of = columns_of(loaded), {}
    with _part(part_of(out), _settings(Path(model), options), [*columns, "stamp"], rows_of) as add:
        left = [path for path in dict.fromkeys(paths) if str(path) not in rows_of]
        if rows_of:
            report(f"{part_of(out)}: resuming, {len(rows_of)} videos are done, {len(left)} are left")
        for batch in predict_rows(left, loaded, **options):
            add(batch)
    table = pd.DataFrame([rows_of[str(path)] for path in paths], columns=columns)
    with replacing(out) as place:
        _as_csv(table, place)
    part_of(out).unlink()
    return table


def _as_csv(table: pd.DataFrame, place: Path | TextIO, header: bool = True) -> None:
    """Write the table as CSV; bytes of file names that are not UTF-8 are written as ``\\udcXX``.

    Text that a spreadsheet would execute is prefixed with an apostrophe, see :mod:`adatosk.utils.tables`.
    """
    defused(table).to_csv(place, index=False, float_format="%.4f", errors="backslashreplace", header=header)


def _settings(model: Path, options: dict[str, Any]) -> str:
    """What the rows of one table must share, as one line; the processor and the batch size may differ."""
    digests = {name: file_digest(model / name) for name in ("config.json", "model.safetensors")}
    return json.dumps(digests | {key: options[key] for key in sorted(options) if key not in ("batch_size", "workers")})


@contextmanager
def _part(path: Path, settings: str, columns: list[str], rows: dict[str, dict]) -> Iterator[Callable]:
    """Fill ``rows`` with the still valid ones of an earlier call, by path; ``add(batch)`` adds to it and to the file.

    The file's numbers have full precision, whereas the table's are rounded.
    """
    kept = _kept_rows(path, settings, columns) if path.is_file() else []
    raw = {"errors": "surrogateescape", "newline": ""}
    with replacing(path) as place, place.open("w", encoding="utf-8", **raw) as file:
        file.write(f"# {settings}\n")
        csv.writer(file, lineterminator="\n").writerows([columns, *([row[name] for name in columns] for row in kept)])
    rows |= {row["path"]: row for row in kept}
    with path.open("a", encoding="utf-8", **raw) as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")

        def add(batch: Sequence[dict]) -> None:
            writer.writerows({**row, "stamp": _stamp(row["path"])} for row in batch)
            file.flush()
            rows.update({row["path"]: row for row in batch})

        yield add


def _kept_rows(path: Path, settings: str, columns: list[str]) -> list[dict]:
    """Rows with a label whose video is unchanged, and whose probabilities add up to 1.

    A kill may truncate the last row, so it must end with a newline.
    """
    text = path.read_text(encoding="utf-8", errors="surrogateescape")
    first, _, rest = text.partition("\n")
    if first != f"# {settings}":
        raise ValueError(
            f"{path}: its rows are from another model or other options: delete it, or name another table with --out"
        )
    records = list(csv.reader(rest.splitlines(keepends=True)))
    whole = [record for record in records[1 : None if text.endswith("\n") else -1] if len(record) == len(columns)]
    rows = [dict(zip(columns, record, strict=True)) for record in whole]
    classes = columns[2:-3]
    kept = []
    for row in rows:
        if row["label"] and row["stamp"] and row["stamp"] == _stamp(row["path"]):
            with suppress(ValueError):  # a damaged row is predicted again
                shares = {name: float(row[name]) for name in classes}
                kept += [row | shares] if abs(sum(shares.values()) - 1) < 1e-4 else []
    return kept


def _stamp(path: str) -> str:
    """Size and modification time of a video, empty if unavailable."""
    try:
        return "-".join(map(str, stamp(Path(path))))
    except OSError:
        return ""
