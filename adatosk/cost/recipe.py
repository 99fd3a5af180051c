"""The paper's recipe at its real size on a stand-in for DFEW: ``make gpu-paper``, or ``python -m adatosk.cost.recipe``.

Rendered clips are written in DFEW's layout. Profile ``paper`` trains on them, is killed, resumes, and is scored under
every protocol; on one GPU, and on all that the machine has. Whatever the real set needs is shown to run, but its
scores: they mean nothing. Without a GPU, a tiny model rehearses this on small images in one process and in two.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from adatosk.config import RunConfig
from adatosk.cost.decoding import write_images
from adatosk.cost.node import Verdict
from adatosk.datasets import build, run_on
from adatosk.datasets.dfew import CLASSES, LABELS
from adatosk.manifests import load
from adatosk.presets import MODELS
from adatosk.synthetic import BENCHMARKS, render, sample_script
from adatosk.utils.devices import run_device
from adatosk.utils.launch import started
from adatosk.utils.provenance import device_name, read_metrics

CLIPS = 2560  # by default: sixteen steps an epoch
FOLDS = 5
DISTINCT = 50  # clips that are rendered; others, in the same fold, are their images from another one on
EPOCHS, KILLED_IN = 4, 2

# Starts a command and returns its lines; with a second argument, it is killed after the line that contains that.
Start = Callable[[Sequence[str], str | None], list[str]]


@dataclass(frozen=True)
class Size:
    """How large a recipe is: clips and their side in pixels, and whether the model is the paper's or a tiny one."""

    clips: int = CLIPS
    side: int = 256
    distinct: int = DISTINCT
    tiny: bool = False


def write_stand_in(root: Path, size: Size) -> Path:
    """Clips as folders of JPEG images, and split lists, in DFEW's layout; returns the manifest built from them.

    Args:
        root: an empty folder.

    Raises:
        ValueError: more clips than can differ, which a check of the manifest would find.
    """
    config, labels = BENCHMARKS["embedded-smoke"].model_copy(update={"size": size.side}), []
    numbers = {name: number for number, name in LABELS.items()}
    faces = root / "Clip" / "clip_224x224"
    for place in range(size.clips):
        folder, first = faces / f"{place + 1:05d}", place % size.distinct
        if place == first:
            script = sample_script(config, "train", place)
            write_images(render(script, config), folder)
            labels.append(script.label)
        else:
            images = sorted((faces / f"{first + 1:05d}").iterdir())
            turn = place // size.distinct
            if turn >= len(images):
                raise ValueError(
                    f"{size.clips} clips: {size.distinct} rendered ones make {place} different ones at most"
                )
            folder.mkdir()
            for name, image in zip(images, images[turn:] + images[:turn], strict=True):
                os.link(image, folder / name.name)
    lines = [f"{place + 1},{numbers[labels[place % size.distinct]]}" for place in range(size.clips)]
    for fold in range(FOLDS):
        for split, test in (("train", False), ("test", True)):
            path = root / "EmoLabel_DataSplit" / f"{split}(single-labeled)" / f"set_{fold + 1}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            chosen = [line for place, line in enumerate(lines) if (place % size.distinct % FOLDS == fold) == test]
            path.write_text("\n".join(["video_name,label", *chosen, ""]), encoding="utf-8")
    return build("dfew", root, report=lambda line: None).save(root / "dfew.csv")


def recipe_config(manifest: Path, size: Size) -> RunConfig:
    """Profile ``paper`` on the first fold, for a few epochs."""
    short = {"epochs": EPOCHS, "warmup_epochs": 1, "eval_every": EPOCHS}
    config = run_on(manifest, "paper", train=short)
    if not size.tiny:
        return config
    model = MODELS["adatosk_tiny"].change(classes=CLASSES).model_dump()
    return config.change(model=model, train={"batch_size": min(8, config.train.batch_size), "compile": False})


def start(command: Sequence[str], kill_after: str | None = None) -> list[str]:
    """Run a command in a process group of its own, and kill all of it after a certain line.

    Raises:
        RuntimeError: it fails, or ends before that line; with the last lines that it printed.
    """
    lines: list[str] = []
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    pipe, both = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(
        command, stdout=pipe, stderr=both, text=True, env=environment, start_new_session=True
    ) as process:
        for line in process.stdout or ():
            lines.append(line.rstrip())
            if kill_after is not None and kill_after in line:
                os.killpg(process.pid, signal.SIGKILL)
                return lines
    if process.returncode or kill_after is not None:
        raise RuntimeError(f"exit status {process.returncode}: {' | '.join(lines[-3:])}")
    return lines


def run_recipe(root: Path, manifest: Path, size: Size, gpus: int, results: Path, start: Start = start) -> list[Verdict]:
    """Train, kill, resume and score; returns what came of it.

    Args:
        root: the stand-in's folder.
        gpus: number of processes, each with a GPU of its own, if there are any.
        results: folder for the run, with its configuration.
    """
    config = recipe_config(manifest, size)
    results.mkdir(parents=True, exist_ok=True)
    path = results / "run.json"
    path.write_text(config.model_dump_json(), encoding="utf-8")
    places = ["--root", root, "--results", results, "--cache", results / "cache"]
    command = started(["-m", "adatosk.train", *map(str, [path, *places])], f"gpu:{gpus}", cpus=os.cpu_count() or 1)
    start(command, f"epoch {KILLED_IN} of {EPOCHS},")
    lines = start(command, None)
    (folder,) = (results / "runs").iterdir()
    metrics = read_metrics(folder / "metrics.json")
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    resumed = next((line.split(": ", 1)[1] for line in lines if "resuming after epoch" in line), "it did not resume")
    protocols = [name for name in metrics["last"] if name in ("views_1", "views_8", "complementary")]
    about = f"{resumed}; {len(log)} of {EPOCHS} epochs; {', '.join(protocols)}; {config.train.precision}"
    whole = "resuming" in resumed and len(log) == EPOCHS and metrics["processes"] == gpus
    trained = len(load(manifest).subset("train", config.data.fold, ())) // config.train.batch_size
    rate = trained * config.train.batch_size / log[-1]["seconds"]
    return [
        Verdict(
            "recipe", f"protocols scored after a kill, {gpus} processes", len(protocols) if whole else 0, 3, note=about
        ),
        Verdict("recipe", f"clips per second in the last epoch, {gpus} processes", rate),
    ]


def main(clips: int = CLIPS) -> int:
    """Write the stand-in, run the recipe on one GPU and on all, and print a verdict a line; returns the exit status."""
    device = run_device()
    real = device.type == "cuda"
    size = Size(clips) if real else Size(40, 48, 10, tiny=True)
    print(f"on {device_name(device)}, {os.cpu_count()} cores, torch {torch.__version__}: {size}", flush=True)
    if not real:
        print("NO GPU HERE: the recipe is rehearsed on the CPU at a tiny size; its rates mean nothing")
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        (root / "dfew").mkdir()
        manifest = write_stand_in(root / "dfew", size)
        for gpus in dict.fromkeys((1, torch.cuda.device_count() if real else 2)):
            found = run_recipe(root / "dfew", manifest, size, gpus, root / f"on {gpus}")
            print(*found, sep="\n", flush=True)
            verdicts += found
    return int(not real or not all(one.met for one in verdicts))


if __name__ == "__main__":
    raise SystemExit(main(*map(int, sys.argv[1:2])))
