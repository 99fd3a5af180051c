"""Seconds, memory and share of the matrix peak: AdaTosk beside VideoMAE ViT-B, alternating in one run.

``python -m adatosk.benchmark`` writes ``results/benchmark/<device>.csv``. Only ratios within one run hold: a machine's
clock, its other work and its memory change from run to run, so what is compared takes turns.
"""

import argparse
import gc
import itertools
import multiprocessing
import re
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from math import nan
from pathlib import Path

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from adatosk.config import ModelConfig, TrainConfig
from adatosk.linear import FLOPS
from adatosk.losses import total_loss
from adatosk.model import AdaTosk
from adatosk.optim import make_optimizer
from adatosk.presets import MODELS
from adatosk.provenance import PROJECT, provenance

MIB = 2**20
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
WORKS = ("forward", "training step")
# The first one is what the others' speed is given against.
RIVAL = "videomae"
CONTENDERS = (RIVAL, "adatosk without soft mask", "adatosk")


@dataclass(frozen=True)
class Setup:
    """What is timed.

    Attributes:
        work: ``forward`` is classification, without gradient and, for AdaTosk, without decoder; ``training step`` is
            forward, loss, backward and AdamW's update (AdaTosk: both branches, Eq. 2; VideoMAE: fine-tuning).
        batch: clips at once.
        precision: ``fp32``, or ``bf16`` by autocast as in training, so each pass converts the weights.
        compiled: through ``torch.compile``.
    """

    work: str = "forward"
    batch: int = 1
    precision: str = "fp32"
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.work not in WORKS:
            raise ValueError(f"unknown work '{self.work}': choose {', '.join(WORKS)}")
        if self.precision not in PRECISIONS:
            raise ValueError(f"unknown precision '{self.precision}': choose {', '.join(PRECISIONS)}")
        if self.batch < 1:
            raise ValueError(f"batch must be at least 1, got {self.batch}")


def build(name: str, config: ModelConfig) -> nn.Module:
    """A contender with random weights.

    Args:
        name: ``adatosk``, ``adatosk without soft mask``, or ``videomae``: transformers' video classifier of the same
            sizes, which sees every patch.
        config: sizes, and AdaTosk's masks.

    Raises:
        ModuleNotFoundError: for ``videomae`` when transformers is not installed.
        ValueError: for another name.
    """
    if name == "adatosk":
        return AdaTosk(config)
    if name == "adatosk without soft mask":
        return AdaTosk(config.change(soft_mask=None))
    if name != RIVAL:
        raise ValueError(f"unknown contender '{name}': choose {', '.join(CONTENDERS)}")
    try:
        from transformers import VideoMAEConfig, VideoMAEForVideoClassification
    except ImportError as error:
        raise ModuleNotFoundError(
            "the rival VideoMAE comes from transformers: pip install -e .[dev], or leave it out of the contenders"
        ) from error
    sizes = VideoMAEConfig(
        image_size=config.image_size,
        patch_size=config.patch_size,
        num_frames=config.frames,
        tubelet_size=config.tubelet,
        hidden_size=config.width,
        num_hidden_layers=config.depth,
        num_attention_heads=config.heads,
        intermediate_size=int(config.width * config.mlp_ratio),
        num_labels=len(config.classes),
    )
    return VideoMAEForVideoClassification(sizes)


def prepare(name: str, config: ModelConfig, setup: Setup, device: torch.device | str = "cpu") -> Callable[[], None]:
    """Build a contender with its input; each call of the result does the work once."""
    device = torch.device(device)
    model = build(name, config).to(device)
    shape = (setup.batch, 3, config.frames, config.image_size, config.image_size)
    video = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)
    labels = torch.arange(setup.batch, device=device) % len(config.classes)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=setup.precision == "bf16")
    if setup.work == "forward":
        model.eval()
        classify = _classifier(model, setup.compiled)

        def forward() -> None:
            with torch.no_grad(), autocast:
                classify(video)

        return forward
    train = TrainConfig()
    optimizer = make_optimizer(model.train(), train)
    run = torch.compile(model) if setup.compiled else model

    def step() -> None:
        """One optimiser step on the same batch."""
        with autocast:
            if isinstance(model, AdaTosk):
                loss = total_loss(run(video), video, labels, model.config, train).total
            else:
                loss = F.cross_entropy(run(pixel_values=video.transpose(1, 2)).logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def _classifier(model: nn.Module, compiled: bool) -> Callable[[Tensor], Tensor]:
    if isinstance(model, AdaTosk):
        if compiled:  # the seeded draw of the hard mask stays outside
            model.classify_visible = torch.compile(model.classify_visible)
        return model.classify
    run = torch.compile(model) if compiled else model
    return lambda video: run(pixel_values=video.transpose(1, 2)).logits


def _synchronise(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _seconds(work: Callable[[], object], device: torch.device | str) -> float:
    _synchronise(device)
    start = time.perf_counter()
    work()
    _synchronise(device)
    return time.perf_counter() - start


def matrix_peak(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    sizes: Sequence[int] | None = None,
    repeats: int = 5,
) -> float:
    """Best rate of a square matrix product measured on this machine, in FLOP/s (2 per multiply-accumulate).

    Args:
        sizes: sides to try, by default large enough for the device to be busy.
        repeats: timed products of each size, after one that is not timed.
    """
    if sizes is None:
        sizes = (4096, 8192) if torch.device(device).type == "cuda" else (1024, 2048)
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        a @ b
        best = max(best, *(2 * size**3 / _seconds(lambda a=a, b=b: a @ b, device) for _ in range(repeats)))
    return best


def time_pair(
    candidates: dict[str, Callable[[], object]], repeats: int = 5, warmup: int = 1, device: torch.device | str = "cpu"
) -> pd.DataFrame:
    """Time candidates that take turns, each round starting with another one.

    Args:
        candidates: what to call, by name; the first is the reference.
        repeats: rounds that are timed.
        warmup: rounds before that are not; compilation happens there.

    Returns:
        one row a candidate, indexed by name: ``seconds`` (median), ``fastest``, ``slowest``, and ``speed_up``, the
        median over the rounds of the reference's seconds divided by the candidate's in the same round.
    """
    if not candidates or repeats < 1 or warmup < 0:
        raise ValueError(f"needs candidates, repeats >= 1 and warmup >= 0, got {len(candidates)}, {repeats}, {warmup}")
    names = list(candidates)
    rounds: list[dict[str, float]] = []
    for number in range(warmup + repeats):
        turn = number % len(names)
        rounds.append({name: _seconds(candidates[name], device) for name in names[turn:] + names[:turn]})
    rows = []
    for name in names:
        times = [timed[name] for timed in rounds[warmup:]]
        ratios = [timed[names[0]] / timed[name] for timed in rounds[warmup:]]
        rows.append((statistics.median(times), min(times), max(times), statistics.median(ratios)))
    index = pd.Index(names, name="model")
    return pd.DataFrame(rows, index=index, columns=["seconds", "fastest", "slowest", "speed_up"])


def count_work(name: str, config: ModelConfig, work: str, device: torch.device | str = "cpu") -> int:
    """Multiply-accumulates of one clip's work, the backward pass included, by torch's counter as it runs."""
    run = prepare(name, config, Setup(work), device)
    with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
        run()
    return counter.get_total_flops() // 2


def peak_memory(name: str, config: ModelConfig, setup: Setup, device: torch.device | str = "cpu") -> float:
    """Most memory in MiB that building a contender and doing its work twice takes; for weights, input and all.

    On a GPU it is what torch's allocator handed out. On a CPU it is how far the resident size of a fresh process grows
    over what it was once everything is imported; NaN where the system does not tell (anything but Linux).
    """
    if torch.device(device).type != "cuda":
        # Spawned, since a fork would begin with this process's memory.
        with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_resident_growth, name, config, setup, torch.get_num_threads()).result()
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run = prepare(name, config, setup, device)
    run(), run()
    _synchronise(device)
    return (torch.cuda.max_memory_allocated(device) - before) / MIB


def _resident_growth(name: str, config: ModelConfig, setup: Setup, threads: int) -> float:
    torch.set_num_threads(threads)
    with torch.device("meta"):
        build(name, config)  # imports what building needs
    before = _status_mib("VmRSS")
    run = prepare(name, config, setup)
    run(), run()
    return max(_status_mib("VmHWM") - before, 0.0)


def _status_mib(field: str) -> float:
    status = Path("/proc/self/status")
    found = re.search(rf"^{field}:\s+(\d+) kB", status.read_text(), re.MULTILINE) if status.is_file() else None
    return int(found[1]) / 1024 if found else nan


def benchmark(
    device: torch.device | str | None = None,
    config: ModelConfig = MODELS["adatosk_base"],
    models: Sequence[str] = CONTENDERS,
    works: Sequence[str] = WORKS,
    batch_sizes: Sequence[int] = (1, 4),
    precisions: Sequence[str] = tuple(PRECISIONS),
    compiled: Sequence[bool] = (False, True),
    repeats: int = 5,
    warmup: int = 1,
    memory: bool = True,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Time every contender in every setup; within a setup they take turns.

    Args:
        device: the GPU if there is one, else the CPU, by default.
        config: sizes; give others to see how the cost grows with frames or resolution.
        models: contenders of :func:`build`, the first being the reference of ``speed_up``.
        works, batch_sizes, precisions, compiled: all their combinations are run; see :class:`Setup`.
        repeats, warmup: see :func:`time_pair`.
        memory: measure peak memory as well, which builds each contender once more.
        report: gets one line a setup.

    Returns:
        one row a model and setup: ``seconds`` of a batch with ``fastest``, ``slowest`` and ``speed_up``,
        ``clips_per_second``, ``gmacs`` a clip, ``peak_share`` of the matrix product's rate ``peak_gflops`` measured in
        the same run, ``memory_mib`` (NaN if not measured), and the provenance.
    """
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    setups = [Setup(*parts) for parts in itertools.product(works, batch_sizes, precisions, compiled)]
    macs = {(name, work): count_work(name, config, work, device) for name in models for work in works}
    peaks = {precision: matrix_peak(device, PRECISIONS[precision]) for precision in precisions}
    tables = []
    for setup in setups:
        table = time_pair({name: prepare(name, config, setup, device) for name in models}, repeats, warmup, device)
        table["clips_per_second"] = setup.batch / table["seconds"]
        table["gmacs"] = [macs[name, setup.work] / 1e9 for name in models]
        table["peak_gflops"] = peaks[setup.precision] / 1e9
        table["peak_share"] = 2 * table["gmacs"] * table["clips_per_second"] / table["peak_gflops"]
        table["memory_mib"] = [peak_memory(name, config, setup, device) if memory else nan for name in models]
        tables.append(table.reset_index().assign(**asdict(setup)))
        report(f"{setup}: " + ", ".join(f"{name} {seconds:.4f} s" for name, seconds in table["seconds"].items()))
    sizes = {"frames": config.frames, "image_size": config.image_size, "width": config.width, "repeats": repeats}
    return pd.concat(tables, ignore_index=True).assign(**sizes, **provenance(device))


def write_table(table: pd.DataFrame, folder: Path = PROJECT / "results" / "benchmark") -> Path:
    """Write a benchmark as ``<folder>/<device>.csv``, replacing an earlier one of that device; returns the path."""
    slug = re.sub(r"[^a-z0-9]+", "-", table["device"].iloc[0].lower()).strip("-")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{slug}.csv"
    temporary = path.with_suffix(".part")
    table.to_csv(temporary, index=False, float_format="%.6g")
    temporary.replace(path)
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """``python -m adatosk.benchmark``; ``--quick`` for a first look."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="batch 1, fp32, not compiled, no memory, 3 repeats")
    parser.add_argument("--model", choices=MODELS, default="adatosk_base", help="sizes of all contenders")
    parser.add_argument("--device", help="as torch names it; the GPU if there is one")
    parser.add_argument("--out", type=Path, default=PROJECT / "results" / "benchmark", help="folder for the table")
    chosen = parser.parse_args(arguments)
    quick = {"batch_sizes": (1,), "precisions": ("fp32",), "compiled": (False,), "memory": False, "repeats": 3}
    table = benchmark(chosen.device, MODELS[chosen.model], **(quick if chosen.quick else {}))
    shown = [
        "model",
        "work",
        "batch",
        "precision",
        "compiled",
        "seconds",
        "speed_up",
        "gmacs",
        "peak_share",
        "memory_mib",
    ]
    print(table[shown].to_string(index=False, float_format="{:.3f}".format))
    print(write_table(table, chosen.out))


if __name__ == "__main__":
    main()
