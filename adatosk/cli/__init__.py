"""The command line: one typer app; every command has examples and follows the same exit convention.

Nothing heavy is imported here, so that help appears at once; each command imports what it needs.
"""

import sys
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer

from adatosk.cli.options import A_MODEL, MODEL_HELP, Cache, Config, Device, Root, argument, option
from adatosk.cli.predicting import predict, rows_kept
from adatosk.utils.endings import CONVENTION, ending

app = typer.Typer(
    help="AdaTosk: train, use, export and measure models with an adaptive temporal soft mask.",
    epilog=CONVENTION,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


def _command(
    *examples: str, kept: str | Callable[..., str] = "nothing was written"
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function with the app as a command of the same name.

    Args:
        *examples: shown below its help.
        kept: what remains after an interruption, see :func:`ending`; or a function that derives it from the command's
            arguments.
    """

    def register(function: Callable[..., None]) -> Callable[..., None]:
        @wraps(function)
        def guarded(**arguments: Any) -> None:
            with ending(kept if isinstance(kept, str) else lambda: kept(**arguments)):
                function(**arguments)

        app.command(epilog="\n\n".join(["[bold]Examples:[/bold]", *examples]))(guarded)
        return function

    return register


def _one_of(value: str, names: Any, option: str) -> str:
    """Return ``value``, or raise a usage error that lists the valid names."""
    if value not in names:
        raise typer.BadParameter(f"'{value}' is none of {', '.join(names)}", param_hint=option)
    return value


@_command(
    "adatosk train run.json --root /data/DFEW",
    "torchrun --nproc-per-node 8 -m adatosk.train run.json --root /data/DFEW",
    kept="the same command resumes after the last whole epoch",
)
def train(
    config: Config,
    root: Root,
    results: Annotated[
        Path | None, option(help="Folder for runs/<run id>/.", show_default="outputs/own of the project")
    ] = None,
    cache: Cache = None,
    workers: Annotated[int | None, option(min=0, help="Loader processes.", show_default="chosen")] = None,
    need_checkpoint: Annotated[
        bool, option("--weights", help="Retrain a finished run whose checkpoints are missing.")
    ] = False,
) -> None:
    """Train and evaluate one run, and print its folder; a finished run is left unchanged."""
    from adatosk.utils.launch import check_launched

    check_launched(["-m", "adatosk.train", *sys.argv[2:]])
    from adatosk.config import RunConfig
    from adatosk.train import train as train_run
    from adatosk.utils.project import CACHE, OUTPUTS, Places

    places = Places(root, results or OUTPUTS / "own", cache or CACHE, workers)
    print(train_run(RunConfig.read(config), places, need_checkpoint))


@_command("adatosk prepare run.json --root /data/DFEW", kept="the same command resumes")
def prepare(
    config: Config,
    root: Root,
    cache: Cache = None,
    workers: Annotated[int | None, option(min=1, help="Threads.", show_default="one per core")] = None,
) -> None:
    """Render, check or decode a run's clips, so that its training starts at once; needs many cores and no GPU."""
    from adatosk.clips import open_clips
    from adatosk.config import RunConfig
    from adatosk.manifests import manifest_of
    from adatosk.utils.project import CACHE
    from adatosk.workspace import prepare_data

    run = RunConfig.read(config)
    prepare_data(run, root)
    open_clips(run.data, manifest_of(run), root, cache or CACHE, workers)
    print(f"{root}: the clips are ready")


_command(
    "adatosk predict me.mp4",
    f"adatosk predict my_videos --model {A_MODEL} --out expressions.csv --precision bf16",
    f"adatosk predict me.mp4 --model {A_MODEL} --every 0.5 --out curve.csv --animation me_and_masks.mp4",
    f"adatosk predict --model {A_MODEL} --whole-frame -- -odd-name.mp4",
    kept=rows_kept,
)(predict)


def _looked_at(report: Path | None = None, **_: Any) -> str:
    if report is None or not report.is_file():
        return "nothing was written; with --report FILE.csv a check resumes"
    return f"{report} keeps what was looked at; the same command resumes"


@_command(
    "adatosk check data_manifests/mafw.csv --root /data/MAFW",
    "adatosk check data_manifests/mine.csv --root my_videos --report problems.csv",
    kept=_looked_at,
)
def check(
    manifest: Annotated[Path, argument(help="A manifest, CSV.")],
    root: Annotated[Path, option(help="Folder that its paths are relative to.")],
    report: Annotated[
        Path | None,
        option(help="CSV table to write, one row per clip. Clips that it already lists as fine are not opened again."),
    ] = None,
    workers: Annotated[int | None, option(min=1, help="Threads.", show_default="one per core")] = None,
) -> None:
    """Open every clip of a manifest, and report which are missing, truncated, damaged or duplicated."""
    from adatosk.manifests import load
    from adatosk.utils.files import check_target

    if report is not None:
        check_target(report, "problems.csv")
    clips = load(manifest)
    found = clips.check(root, workers, report=report)
    for row in found.broken.itertuples():
        print(f"{row.id}: {row.problem}")
    if len(found.broken):
        kinds = ", ".join(f"{kind} {count}" for kind, count in found.kinds.items())
        raise ValueError(
            f"{manifest}: {len(found.broken)} of {len(found.table)} clips are broken ({kinds}): repair them, or list "
            "their ids under a run's data.exclusions"
        )
    print(f"{manifest}: all {len(found.table)} clips are fine")


@_command(
    "adatosk pretrained videomae_vit_b.pth",
    "adatosk pretrained model.safetensors --model adatosk_base",
)
def pretrained(
    file: Annotated[Path, argument(help="A checkpoint: .pth, .bin or .safetensors.")],
    model: Annotated[str, option(help="Name of the model to initialise from it.")] = "adatosk_base",
) -> None:
    """Print which weights of a VideoMAE checkpoint fit a model's encoder, and the line that names it in a run file."""
    import json

    from adatosk.model import create_model
    from adatosk.presets import MODELS
    from adatosk.pretrained import describe, load_encoder

    _one_of(model, MODELS, "--model")
    weights = describe(file)
    print(load_encoder(create_model(model), file))
    print(f'for a run file: "weights": {json.dumps(weights.model_dump())}')


@_command(
    f"adatosk export {A_MODEL} --onnx adatosk.onnx",
    f"adatosk export {A_MODEL} --program adatosk.pt2 --views 8",
    kept="files that were printed are whole, of the others nothing was written",
)
def export(
    model: Annotated[Path, argument(help=MODEL_HELP)],
    onnx: Annotated[Path | None, option(help="File to write for ONNX runtimes.")] = None,
    program: Annotated[Path | None, option(help="File to write for torch.export.load (.pt2).")] = None,
    views: Annotated[int, option(min=1, help="Number of hard masks to average over.")] = 1,
    device: Device = None,
) -> None:
    """Write a model as a program that maps normalised clips to logits and runs without adatosk.

    A program for torch.export.load runs on the device that it was exported on; one for ONNX runtimes on any.
    """
    if onnx is None and program is None:
        raise typer.BadParameter("nothing to write: name a file with --onnx or --program")
    from adatosk.export import fixed_masks, save_program, to_onnx
    from adatosk.predict import load_model
    from adatosk.utils.devices import run_device
    from adatosk.utils.files import check_target

    place = run_device(device)
    for target, example in ((program, "adatosk.pt2"), (onnx, "adatosk.onnx")):
        if target is not None:
            check_target(target, example)
    loaded = load_model(model, place)
    visible = fixed_masks(loaded, views)
    if program is not None:
        print(save_program(loaded, program, visible))
    if onnx is not None:
        print(to_onnx(loaded, onnx, visible))


@_command(
    "adatosk benchmark --model --quick --sizes adatosk_small",
    "adatosk benchmark --sweeps",
    "adatosk benchmark --decoding clip.mp4 folder_of_frames --size 224",
    kept="tables that were printed are whole, of the others nothing was written",
)
def benchmark(
    clips: Annotated[
        list[Path] | None, argument(help="Video files or folders of frames to decode instead of rendered ones.")
    ] = None,
    model: Annotated[bool, option("--model", help="Time and memory of the model, compared with VideoMAE.")] = False,
    loader: Annotated[bool, option("--loader", help="Whether the loader keeps up with training.")] = False,
    decoding: Annotated[bool, option("--decoding", help="How fast clips are decoded.")] = False,
    video: Annotated[bool, option("--video", help="How fast a whole video is classified.")] = False,
    quick: Annotated[
        bool, option("--quick", help="Model: one clip, fp32, not compiled, no memory. Alone, only that part.")
    ] = False,
    sweeps: Annotated[bool, option("--sweeps", help="Model: also how the cost grows, and Table 2's cells.")] = False,
    sizes: Annotated[str, option(help="Model: the named model whose size all contenders share.")] = "adatosk_base",
    device: Device = None,
    gpu_tflops: Annotated[float, option(min=1, help="Loader: TFLOP/s that a GPU sustains in training.")] = 445.0,
    size: Annotated[int, option(min=1, help="Decoding: side in pixels at which CLIPS are read.")] = 112,
    repeats: Annotated[int, option(min=1, help="Decoding: rounds.")] = 15,
    seconds: Annotated[int, option(min=3, help="Video: its length.")] = 60,
    out: Annotated[
        Path | None, option(help="Folder for the tables.", show_default="results/benchmark of the project")
    ] = None,
) -> None:
    """Measure this machine: model, loader, decoding and a whole video, or only the parts named; one table each."""
    if clips and (model or loader or video or quick or sweeps):
        raise typer.BadParameter("clips are for --decoding alone", param_hint="CLIPS")
    if clips:
        from adatosk.cost.decoding import compare_named

        print(compare_named(clips, size, repeats).to_string(index=False))
        return
    from adatosk.cost.models import RESULTS
    from adatosk.presets import MODELS
    from adatosk.utils.devices import run_device

    place = run_device(device)
    config, folder = MODELS[_one_of(sizes, MODELS, "--sizes")], out or RESULTS
    named = model or loader or decoding or video
    if model or not named:
        from adatosk.cost import models

        print(models.record(config, place, quick, sweeps, folder))
    if loader or not (named or quick):
        from adatosk.cost import loader as loading

        print(*loading.record(gpu_tflops, folder), sep="\n")
    if decoding or not (named or quick):
        from adatosk.cost import decoding as decoders

        print(decoders.record(repeats, folder))
    if video or not (named or quick):
        from adatosk.cost import video as whole

        print(whole.record(config, seconds, folder, place))


@_command("adatosk report", "adatosk report --profile demo --publish", kept="files that were written are whole")
def report(
    profile: Annotated[str, option(help="Profile whose runs are reported.")] = "demo",
    publish: Annotated[
        bool, option("--publish", help="Also copy outputs/ to results/, and update README.md and RESULTS.md.")
    ] = False,
) -> None:
    """Print the results (the paper's values beside ours) and a comparison with the published ones; save all tables."""
    from adatosk.experiments import comparison, publication
    from adatosk.experiments.report import pair_by_kind, results_block, write_tables
    from adatosk.presets import EMBEDDED, PROFILES
    from adatosk.utils.project import OUTPUTS, need_checkout
    from adatosk.workspace import adopt_published

    _one_of(profile, PROFILES, "--profile")
    need_checkout("adatosk report")
    adopt_published(profile)
    outputs = OUTPUTS / profile
    write_tables(profile, outputs)
    print(results_block(profile, outputs))
    print(f"\ntables:    {outputs / 'tables'}\nfigures:   {outputs / 'figures'}\nnotebooks: {outputs / 'notebooks'}\n")
    print(comparison.report(profile))
    pair = pair_by_kind(profile, outputs)
    if pair is not None:
        for other in EMBEDDED.values():
            if other != profile and (OUTPUTS / other).is_dir():
                print(f"\n{comparison.report(other)}")
        print(f"\nWAR of Table 1's pair on each kind of clips, first seed:\n{pair.T.round(1).to_string()}")
    if publish:
        print(*[f"published {path}" for path in publication.publish(profile)], sep="\n")
