"""What ``adatosk predict`` takes, and which of three tasks it asks for; :mod:`adatosk.cli.prediction` does them."""

from pathlib import Path
from typing import Annotated, Any

import typer

from adatosk.cli.options import MODEL_HELP, Device, Precision, argument, option

_Videos = Annotated[list[Path], argument(help="Videos, folders of frames, or folders of these.")]
_Model = Annotated[
    Path | None, option(help=MODEL_HELP, show_default="the one that ships, which knows rendered faces only")
]
_Out = Annotated[
    Path | None, option(help="CSV table to write, one row per video. Until it is complete, FILE.part holds its rows.")
]
_Views = Annotated[
    int | None, option(min=1, help="Number of hard masks to average over.", show_default="8; 1 with --out")
]
_WholeFrame = Annotated[bool, option("--whole-frame", help="Do not look for a face: the clips are already cropped.")]
_Person = Annotated[int, option(min=1, help="Whose face, where there are several: 1 is the largest, 2 the next one.")]
_Complementary = Annotated[
    bool, option("--complementary", help="Use partitions instead: each shows every patch once. One video only.")
]
_Start = Annotated[int | None, option(help="First frame. One video only.", show_default="the middle of the video")]
_BatchSize = Annotated[int, option(min=1, help="Videos per batch, with --out.")]
_Precision = Annotated[Precision, option(help="Floating-point precision, with --out.")]
_Compile = Annotated[bool, option("--compile", help="Use torch.compile, with --out: for a GPU; slower on a CPU.")]
_Every = Annotated[
    float | None, option(help="Classify a clip each so many seconds of one whole video; --out is then its curve.")
]
_Figure = Annotated[Path | None, option(help="Picture of the curve to write, with --every.")]
_Animation = Annotated[
    Path | None, option(help="MP4 or GIF of the video with soft mask and label to write, with --every.")
]
_Fps = Annotated[float | None, option(help="Frames per second of a folder of frames, with --every.")]
_VIDEOS_PER_BATCH = 8


def predict(
    videos: _Videos,
    model: _Model = None,
    out: _Out = None,
    views: _Views = None,
    whole_frame: _WholeFrame = False,
    person: _Person = 1,
    complementary: _Complementary = False,
    start: _Start = None,
    batch_size: _BatchSize = _VIDEOS_PER_BATCH,
    precision: _Precision = Precision.FP32,
    compile: _Compile = False,
    every: _Every = None,
    figure: _Figure = None,
    animation: _Animation = None,
    fps: _Fps = None,
    device: Device = None,
) -> None:
    """Classify the expression in a video: its label and probabilities. With --out, in many videos: a table.

    With --every, the expression over one whole video: when it has which label, and a table of the probabilities over
    time (CSV, or Parquet if called so).

    If a video gets no label, because it is unreadable or shows no face, the table's column error gives the reason, and
    the command exits with status 1; all other rows are written.
    """
    of_one = complementary or start is not None
    of_table = compile or batch_size != _VIDEOS_PER_BATCH or precision != Precision.FP32
    of_whole = (figure, animation, fps) != (None, None, None)
    if every is not None:
        _refuse(of_one or compile, "--complementary, --start and --compile do not go with --every")
    else:
        _refuse(of_whole, "--figure, --animation and --fps are for a whole video: say --every SECONDS")
        _refuse(out is not None and of_one, "--complementary and --start are for one video, without --out")
        _refuse(out is None and of_table, "--batch-size, --precision and --compile are for a table: name it with --out")

    from adatosk.cli import prediction as run
    from adatosk.utils.devices import run_device

    how = {"views": views, "locate_face": not whole_frame, "person": person, "device": run_device(device)}
    speed = {"batch_size": batch_size, "precision": precision.value}
    if every is not None:
        files = run.Files(out, figure, animation)
        run.whole(run.single(videos), run.chosen(model), files, fps, every=every, **speed, **how)
    elif out is not None:
        run.many(videos, run.chosen(model), out, compile=compile, **speed, **how)
    else:
        run.one(run.single(videos), run.chosen(model), complementary=complementary, start=start, **how)


def _refuse(wrong: bool, why: str) -> None:
    if wrong:
        raise typer.BadParameter(why)


def rows_kept(out: Path | None = None, every: float | None = None, **_: Any) -> str:
    if every is not None:
        return "files that were printed are whole, of the others nothing was written"
    part = None if out is None else out.with_name(out.name + ".part")
    if part is None or not part.is_file():
        return "nothing was written"
    return f"{part} keeps the rows so far; the same command resumes"
