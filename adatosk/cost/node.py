"""What a GPU node shows in minutes: ``make gpu``, or ``python -m adatosk.cost.node``.

Five parts, each in a process of its own and with a limit: the tests marked ``gpu``, the steps of the paper's model
beside VideoMAE's, an epoch that the loader feeds, the rate of profile demo's runs, and decoding by the GPU itself. A
part that fails or exceeds its limit keeps what it found until then, and the others run. Without a GPU, the parts are
rehearsed on the CPU at tiny sizes, nothing is recorded, and the exit status is 1.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from adatosk.clips import ClipDataset, make_loader
from adatosk.config import ModelConfig, RunConfig
from adatosk.cost.contenders import CONTENDERS, Setup, peak_memory, prepare
from adatosk.cost.loader import CACHE, FRAME_FOLDERS, Source, clips_of, rendered
from adatosk.cost.models import RESULTS, benchmark, write_table
from adatosk.cost.timing import seconds
from adatosk.manifests import manifest_of
from adatosk.model import create_model
from adatosk.onednn import through_onednn
from adatosk.presets import MODELS, PROFILES
from adatosk.training.graphs import WARM_UP, step_graph
from adatosk.training.optim import make_optimizer, optimizer_step
from adatosk.utils import seeds
from adatosk.utils.devices import run_device
from adatosk.utils.endings import ending
from adatosk.utils.parallel import WorkerPool
from adatosk.utils.project import PROJECT
from adatosk.utils.provenance import device_name, provenance
from adatosk.video import frame_indices
from adatosk.video.folders import image_paths

# Seconds for each part, eight minutes in all.
LIMITS = {"tests": 110, "steps": 220, "fed": 65, "demo": 55, "decode": 30}
GRID_RUNS = 185
TOGETHER = 8  # of profile demo's runs on one GPU, as the workflow starts them


@dataclass(frozen=True)
class Verdict:
    """One line: a value beside its goal, which is a lower limit, or an upper one if ``at_most``; NaN is none."""

    part: str
    what: str
    value: float
    goal: float = float("nan")
    at_most: bool = False
    note: str = ""

    @property
    def met(self) -> bool:
        """Whether the goal is reached; without a goal, whether there is a value."""
        if self.goal != self.goal:
            return self.value == self.value
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def __str__(self) -> str:
        goal = "" if self.goal != self.goal else f" (goal {'at most' if self.at_most else 'at least'} {self.goal:g})"
        note = f": {self.note}" if self.note else ""
        return f"{'ok  ' if self.met else 'MISS'} {self.part:<6}{self.what} {self.value:.4g}{goal}{note}"


def tests(device: torch.device, folder: Path) -> Iterator[Verdict]:
    """The tests marked ``gpu``; they are skipped without one."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-rs", "tests/test_on_gpu.py"]
    environment = {name: value for name, value in os.environ.items() if name != "ADATOSK_DEVICE"}
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, env=environment, check=False)
    lines = [line for line in done.stdout.splitlines() if line.strip()] or done.stderr.splitlines()[-1:]
    failed = [line for line in lines if line.startswith(("FAILED", "ERROR"))]
    note = "; ".join([*failed[:3], lines[-1] if lines else "no output"])
    yield Verdict("tests", "exit status", abs(done.returncode), 0, True, note)


def steps(device: torch.device, folder: Path) -> Iterator[Verdict]:
    """Forward passes and training steps beside VideoMAE's; on a GPU the table is recorded, before the steps as well."""
    real = device.type == "cuda"
    batch, config = (64, MODELS["adatosk_base"]) if real else (2, MODELS["adatosk_tiny"])
    options: dict[str, Any] = {"repeats": 5 if real else 1, "memory": False}
    passes = benchmark(device, config, [Setup("forward", batch, "bf16"), Setup("forward", batch)], **options)
    write_table(passes, folder)
    rows = passes.set_index(["precision", "model"])
    yield from _beside("forward pass", rows.loc["bf16"], 3.8, 4.1)
    share = rows.loc[("fp32", "adatosk"), "soft_mask_share"]
    yield Verdict("steps", "soft mask's own share of the forward pass", share, 0.02, at_most=True)
    setup = Setup("training step", batch, "bf16", compiled=real)
    if real:
        _compile_ahead(config, setup, device)
    table = benchmark(device, config, [setup], **options)
    write_table(pd.concat([table, passes], ignore_index=True), folder)
    rows = table.set_index("model")
    yield Verdict("steps", "share of the matrix peak in a training step", rows.loc["adatosk", "peak_share"], 0.45)
    yield from _beside("training step", rows, 3.3, 3.5)
    memory = peak_memory("adatosk", config, Setup("training step", 2 * batch, "bf16"), device) / 1024
    yield Verdict("steps", f"GiB of memory in a training step of {2 * batch} clips", memory)


def _beside(work: str, rows: pd.DataFrame, without: float, whole: float) -> Iterator[Verdict]:
    """The speed of both models beside VideoMAE's with their goals, and beside each other."""
    bare, masked = (rows.loc[name] for name in ("adatosk without soft mask", "adatosk"))
    yield Verdict("steps", f"{work} against VideoMAE's, without soft mask", bare["speed_up"], without)
    yield Verdict("steps", f"{work} against VideoMAE's, with soft mask", masked["speed_up"], whole)
    yield Verdict("steps", f"{work} without soft mask against with", bare["seconds"] / masked["seconds"], 1)


def _compile_ahead(config: ModelConfig, setup: Setup, device: torch.device) -> None:
    """Compile the contenders side by side, into the compiler's cache on disk: one after another takes minutes."""
    with WorkerPool(patient=False) as pool:
        work = [
            pool.submit(_one_step, name, config, setup, device) for name in CONTENDERS if setup.separates(name, device)
        ]
        wait(work)  # what does not compile is reported by the benchmark


def _one_step(name: str, config: ModelConfig, setup: Setup, device: torch.device) -> None:
    prepare(name, config, setup, device)()


class _Loop:
    """Training steps of a configuration as :mod:`adatosk.train` takes them, without its evaluation and files."""

    def __init__(self, config: RunConfig, dataset: ClipDataset, device: torch.device, workers: int | None) -> None:
        from accelerate import Accelerator

        self.config, self.device = config, device
        self.accelerator = Accelerator(cpu=device.type == "cpu", mixed_precision=config.train.precision)
        torch.manual_seed(config.seed)
        self.model = through_onednn(create_model(config.model).to(device)).train()
        self.optimizer = make_optimizer(self.model, config.train)
        if config.train.compile:
            self.model.compile()
        self.told: list[str] = []
        self.graph = step_graph(config.train, self.model, report=self.told.append)
        self.loader = make_loader(dataset, config.train.batch_size, workers, shuffle=True, device=device)
        self.steps = 0

    def step(self, batch: dict[str, torch.Tensor]) -> None:
        self.steps += 1
        draw = seeds.generator(self.config.seed, self.steps)
        optimizer_step(self.model, batch, self.optimizer, self.config.train, self.accelerator, draw, self.graph)

    def epoch(self) -> None:
        for batch in self.loader:
            self.step(batch)


def fed(device: torch.device, folder: Path) -> Iterator[Verdict]:
    """The second epoch of profile paper's training from folders of JPEG images, beside steps on a resident batch."""
    real, config = device.type == "cuda", PROFILES["paper"]
    if not real:
        config = config.change(model=MODELS["adatosk_tiny"].model_dump(), train={"batch_size": 4, "compile": False})
    with _form(FRAME_FOLDERS, config, side=256 if real else 48) as source:
        batch, count = config.train.batch_size, 60 if real else 3
        rounds = -(-count * batch // len(source.manifest.clips))
        loop = _Loop(config, clips_of(ClipDataset, source, config, rounds), device, None if real else 1)
        loop.epoch()
        taken = loop.steps
        epoch = seconds(loop.epoch, device)
        start = time.perf_counter()
        first = next(iter(loop.loader))
        waited = time.perf_counter() - start
        resident = {name: value.to(device) for name, value in first.items()}
        bare = seconds(lambda: [loop.step(resident) for _ in range(20 if real else 2)], device) / (20 if real else 2)
    rate, best = taken * batch / epoch, batch / bare
    note = f"{rate:.0f} clips/s in an epoch of {taken} steps of {batch}, {best:.0f} without loading"
    yield Verdict("fed", "rate of a fed epoch, of the bare step's", rate / best, 0.9, note=note)
    yield Verdict("fed", f"seconds to an epoch's first batch, loaded in {loop.loader.pieces} pieces", waited)


@contextmanager
def _form(name: str, config: RunConfig, side: int) -> Iterator[Source]:
    """The clips of :func:`adatosk.cost.loader.rendered` in one storage form."""
    with rendered(config, side) as found:
        yield next(one for one in found if one.name == name)


def demo(device: torch.device, folder: Path) -> Iterator[Verdict]:
    """Seconds of profile demo's training steps in one run alone, and for the grid with several at once."""
    config, real = PROFILES["demo"], device.type == "cuda"
    together, count = (TOGETHER, 195) if real else (2, 3)
    clips = manifest_of(config).subset("train", config.data.fold, config.data.exclusions)
    a_run = config.train.epochs * (len(clips) // config.train.batch_size)
    with _form(CACHE, config, side=96) as source:
        rounds = -(-count * config.train.batch_size // len(source.manifest.clips))
        dataset = clips_of(ClipDataset, source, config, rounds)
        alone, told = _demo_steps(dataset, str(device), count)
        note = f"{a_run} steps of {alone * 1000:.1f} ms"
        yield Verdict("demo", "seconds of one run's training steps", a_run * alone, 15, at_most=True, note=note)
        launched, _ = _demo_steps(dataset, str(device), count, graph=False)
        yield Verdict("demo", "milliseconds of a step launched kernel by kernel", launched * 1000, note=told)
        with WorkerPool(together, patient=False) as pool:
            work = [pool.submit(_demo_steps, dataset, str(device), count) for _ in range(together)]
            beside = max(one.result()[0] for one in work) / together
    note = f"{together} at once take {beside * 1000:.1f} ms a step of one"
    minutes = GRID_RUNS * a_run * beside / 60
    yield Verdict("demo", "minutes of all runs' training steps", minutes, 10, at_most=True, note=note)


def _demo_steps(dataset: ClipDataset, device: str, count: int, graph: bool | None = None) -> tuple[float, str]:
    """Seconds of a step, and what was said about its CUDA graph.

    The slowest of several processes that start at about the same time counts for all.
    """
    torch.set_num_threads(1)
    config = PROFILES["demo"].change(train={"cuda_graph": graph})
    loop = _Loop(config, dataset, torch.device(device), workers=0)
    for batch in itertools.islice(loop.loader, WARM_UP + 2):
        loop.step(batch)
    before = loop.steps
    taken = seconds(loop.epoch, device) / max(loop.steps - before, 1)
    return taken, "; ".join(loop.told) or "no CUDA graph on a CPU"


def decode(device: torch.device, folder: Path) -> Iterator[Verdict]:
    """Clips per second of folders of JPEG images, by the loader's processes and by the GPU's own decoder."""
    real, config = device.type == "cuda", PROFILES["paper"]
    side, batch = (256, config.train.batch_size) if real else (48, 4)
    with _form(FRAME_FOLDERS, config, side) as source:
        count = len(source.manifest.clips)
        dataset = clips_of(ClipDataset, source, config, rounds=-(-20 * batch // count) if real else 1)
        loader = make_loader(dataset, batch, None if real else 1, shuffle=True, device=device)

        def deliver() -> None:
            for one in loader:
                one["frames" if real else "video"].to(device)

        deliver()  # processes and caches warm up
        by_processes = len(loader) * batch / seconds(deliver, device)
        folders = [source.root / path for path in source.manifest.clips["path"]]
        decode_on(device, folders[:2], config)
        by_gpu = 3 * count / seconds(lambda: decode_on(device, 3 * folders, config), device)
    note = f"{by_gpu:.0f} clips/s by {device.type}, {by_processes:.0f} by the loader's processes"
    yield Verdict("decode", f"rate of decoding on {device.type}, of the loader's", by_gpu / by_processes, note=note)


def decode_on(device: torch.device, folders: Sequence[Path], config: RunConfig) -> None:
    """Decode the frames that a clip has in evaluation, eight clips at a time, by torchvision on a device."""
    from torchvision.io import ImageReadMode, decode_jpeg, read_file

    for first in range(0, len(folders), 8):
        images = []
        for paths in map(image_paths, folders[first : first + 8]):
            chosen = frame_indices(len(paths), config.model.frames, config.data.stride)
            images += [read_file(str(paths[index])) for index in chosen]
        decode_jpeg(images, mode=ImageReadMode.RGB, device=device)


PARTS: dict[str, Callable[[torch.device, Path], Iterator[Verdict]]] = {
    "tests": tests,
    "steps": steps,
    "fed": fed,
    "demo": demo,
    "decode": decode,
}


def run_part(name: str, device: torch.device, folder: Path, limit: float) -> list[Verdict]:
    """The verdicts of one part from a process of its own, with one that says why if it fails or exceeds ``limit``.

    Args:
        folder: for what the part writes.
        limit: in seconds.
    """
    command = [sys.executable, "-m", "adatosk.cost.node", name, str(device), str(folder)]
    start = time.perf_counter()
    # In files, since of a part that is stopped a pipe's end is lost.
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        try:
            status = subprocess.run(command, stdout=out, stderr=errors, timeout=limit, check=False).returncode
        except subprocess.TimeoutExpired:
            status = None
        out.seek(0), errors.seek(0)
        found = [Verdict(**json.loads(line)) for line in out if line.startswith('{"part"')]
        said = errors.read().strip().splitlines() or ["no output"]
    if status is None:
        return [*found, Verdict(name, "seconds", limit, limit - 1, at_most=True, note=f"stopped after {limit:.0f} s")]
    if status:
        return [*found, Verdict(name, "failed, exit status", abs(status), 0, at_most=True, note=said[-1])]
    return [*found, Verdict(name, "seconds", time.perf_counter() - start, limit, at_most=True)]


def main(folder: Path = RESULTS) -> int:
    """Run all parts and print a verdict a line; returns the exit status, 0 if every goal is met on a GPU."""
    device = run_device()
    real = device.type == "cuda"
    print(f"on {device_name(device)}, {os.cpu_count()} cores, torch {torch.__version__}")
    if not real:
        print("NO GPU HERE: the parts are rehearsed on the CPU at tiny sizes; their values mean nothing")
    verdicts: list[Verdict] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name, limit in LIMITS.items():
            found = run_part(name, device, folder if real else Path(scratch), limit * (1 if real else 4))
            print(*found, sep="\n", flush=True)
            verdicts += found
    if not real:
        print("NO GPU HERE: nothing was recorded")
        return 1
    table = pd.DataFrame([asdict(one) | {"met": one.met} for one in verdicts]).assign(**provenance(device))
    print(write_table(table, folder, "-node"))
    return int(not all(one.met for one in verdicts))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        with ending("the tables of whole parts are recorded, the verdicts are not"):
            raise SystemExit(main())
    part, where, target = sys.argv[1:]
    for verdict in PARTS[part](run_device(where), Path(target)):
        print(json.dumps(asdict(verdict)), flush=True)
