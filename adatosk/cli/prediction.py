"""What ``adatosk predict`` does, prints and writes: for one clip, for a whole video, for many videos."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from adatosk.predict import caveat, predict
from adatosk.shipped import shipped
from adatosk.utils.files import check_target, is_ordinary, replacing
from adatosk.utils.provenance import device_name
from adatosk.video.reading import FPS

if TYPE_CHECKING:  # one clip waits for neither pandas nor matplotlib
    import torch


def single(videos: Sequence[Path]) -> Path:
    """The only video named, a file or a folder of frames; otherwise a usage error."""
    several = len(videos) > 1
    if not several and videos[0].is_dir():
        from adatosk.predict_many import is_clip

        several = not is_clip(videos[0])
    if several:
        raise typer.BadParameter(
            "several videos make a table: name it with --out FILE.csv, without --every", param_hint="VIDEOS"
        )
    return videos[0]


def chosen(model: Path | None) -> Path:
    """The model named or, without one, the one that ships; says on standard error if it knows no real faces."""
    folder = shipped() if model is None else model
    if line := caveat(folder):
        _note(line if model is not None else f"no --model, so the one that ships: {line}")
    return folder


def one(video: Path, model: Path, views: int | None, device: "torch.device", **options: Any) -> None:
    """Print the label of one clip, whose face was used, and the probabilities."""
    found = predict(video, model, views=8 if views is None else views, device=device, **options)
    print(found.label)
    if found.face is not None:
        _note(f"by {found.face}")
    _note_gpu(device)
    for name, probability in sorted(found.probabilities.items(), key=lambda item: -item[1]):
        print(f"  {name:<12}{probability:.3f}")


def many(
    videos: Sequence[Path], model: Path, out: Path, views: int | None, device: "torch.device", **options: Any
) -> None:
    """Write a table of many videos; those without a label are an error, and what was skipped is reported."""
    from adatosk.predict_many import expand, predict_into

    check_target(out, "labels.csv")  # before the work that it would cost
    paths, others = expand(videos)
    options |= {"views": 1 if views is None else views}
    table = predict_into(out, paths, model, report=_note, device=device, **options)
    failed = table[table["error"] != ""]
    for error in failed["error"]:
        _note(f"no label: {error}")
    if others:
        names = ", ".join(path.name for path in others[:5]) + (", …" if len(others) > 5 else "")
        _note(f"passed over, {len(others)} beside the videos: {names}")
    _tell(f"{out}: {len(table) - len(failed)} of {len(table)} videos", out)
    _note_gpu(device)
    if len(failed):
        raise ValueError(f"{out}: {len(failed)} of {len(table)} videos have no label: its column 'error' says why")


@dataclass(frozen=True)
class Files:
    """What is written about a whole video: a table, a picture of its curve, the video with everything drawn on it."""

    table: Path | None
    figure: Path | None
    animation: Path | None


def whole(
    video: Path,
    model: Path,
    files: Files,
    fps: float | None,
    views: int | None,
    person: int,
    device: "torch.device",
    **options: Any,
) -> None:
    """Print when a video has which label, and write the files; none unless it can be read to its end.

    A line for each time during which the label stays the same gives its mean probability; the last one, on standard
    error, whose face was used.
    """
    from adatosk.plots.over_time import animate, check_animation, expression_over_time
    from adatosk.predict_over_time import check_table, predict_over_time, write_curve

    if files.animation is not None:
        check_animation(files.animation)
    for path, example in ((files.figure, "curve.png"), (files.animation, "expression.mp4")):
        if path is not None:
            check_target(path, example)
    if files.table is not None:
        check_table(files.table)
    rate = FPS if fps is None else fps
    options |= {"views": 1 if views is None else views, "device": device}
    curve = predict_over_time(video, model, person=person, fps=rate, **options)
    for line in curve.in_words():
        _tell(line, files.table)
    if curve.faces is not None:
        _note(f"by {curve.whose}")
    _note_gpu(device)
    if files.table is not None:
        write_curve(curve, files.table)
        _tell(str(files.table), files.table)
    if files.figure is not None:
        drawn = expression_over_time(curve, {clip: curve.seen(clip) for clip in curve.decisive()})
        with replacing(files.figure) as part:
            drawn.savefig(part, format=files.figure.suffix[1:] or "png", dpi=150)
        _tell(str(files.figure), files.table)
    if files.animation is not None:
        animate(curve, files.animation, rate)
        _tell(str(files.animation), files.table)


def _tell(line: str, out: Path | None) -> None:
    # A table written to standard output must be the only thing there.
    print(line) if out is None or is_ordinary(out) else _note(line)


def _note_gpu(device: "torch.device") -> None:
    if device.type == "cuda":
        _note(f"on {device_name(device)}")


def _note(line: str) -> None:
    typer.echo(line, err=True)
