"""Time, memory and share of the matrix peak: AdaTosk compared with VideoMAE ViT-B, alternating in one run.

``adatosk benchmark --model --sweeps`` writes ``results/benchmark/<device>.csv``. Only ratios within one run are
meaningful: a machine's clock, load and memory change from run to run, so the models that are compared alternate.
"""

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from math import nan
from pathlib import Path

import pandas as pd
import torch

from adatosk.config import ModelConfig
from adatosk.cost.contenders import (
    CONTENDERS,
    SAME_PRODUCTS,
    WORKS,
    Setup,
    count_work,
    peak_memory,
    prepare,
)
from adatosk.cost.operations import hand_count, table2_cost
from adatosk.cost.timing import matrix_peaks, time_pair
from adatosk.model import AdaTosk
from adatosk.onednn import for_inference
from adatosk.predict import PRECISIONS, dtype_of
from adatosk.presets import MODELS
from adatosk.utils.devices import run_device
from adatosk.utils.files import write_csv
from adatosk.utils.project import PROJECT
from adatosk.utils.provenance import provenance
from adatosk.utils.tables import read_csv

RESULTS = PROJECT / "results" / "benchmark"
# Suffixes of a device's tables other than that of the models.
OTHERS = ("-loader", "-loader-process", "-loader-trace", "-decode", "-video", "-node")
# The sweeps, one size at a time; 160 pixels is the resolution of the rivals MAE-DFER and SVFAP.
SWEEPS: dict[str, tuple[int, ...]] = {
    "frames": (8, 16, 32),
    "image_size": (112, 160, 224, 288),
    "batch": (1, 2, 4, 8),
}
GROWING = tuple(name for name in CONTENDERS if name != SAME_PRODUCTS)
SHOWN = ["model", "work", "batch", "precision", "compiled", "seconds", "speed_up", "gmacs", "peak_share", "memory_mib"]


def default_setups(device: torch.device | str) -> list[Setup]:
    """All combinations on a GPU; on a CPU, a selection that takes minutes."""
    if torch.device(device).type == "cuda":
        return [Setup(*parts) for parts in itertools.product(WORKS, (1, 64), PRECISIONS, (False, True))]
    forward = [Setup("forward", batch, precision) for precision in PRECISIONS for batch in (1, 4)]
    steps = [Setup("training step", 1, precision) for precision in PRECISIONS]
    return forward + steps + [Setup("forward", 1, precision, compiled=True) for precision in PRECISIONS]


def _ready(
    names: Sequence[str], config: ModelConfig, setup: Setup, device: torch.device | str
) -> tuple[dict[str, Callable[[], None]], dict[str, str]]:
    """The contenders that run, each run once; and why the others do not compile, for example without a C++ compiler."""
    works, reasons = {}, {}
    for name in names:
        try:
            works[name] = prepare(name, config, setup, device)
            works[name]()
        except Exception as error:
            if not setup.compiled:
                raise
            works.pop(name, None)
            reasons[name] = f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return works, reasons


def measure(
    config: ModelConfig,
    setup: Setup,
    models: Sequence[str] = CONTENDERS,
    device: torch.device | str = "cpu",
    repeats: int = 5,
    warmup: int = 1,
) -> pd.DataFrame:
    """Time the contenders in one setup, alternating.

    Args:
        models: contenders of :func:`adatosk.cost.contenders.build`, the first being the reference of ``speed_up``; one
            that does not differ from another in this setup is left out.
        repeats, warmup: see :func:`time_pair`.

    Returns:
        one row per model: :func:`time_pair`'s columns, ``clips_per_second``, ``gmacs`` per clip, the setup, the sizes,
        and ``reason``, why there is no time if a model could not be compiled.
    """
    names = [name for name in models if setup.separates(name, device)]
    works, reasons = _ready(names, config, setup, device)
    columns = ["seconds", "fastest", "slowest", "speed_up"]
    table = time_pair(works, repeats, warmup, device) if works else pd.DataFrame(columns=columns, dtype=float)
    if names[0] in reasons:
        table["speed_up"] = nan
    table = table.reindex(pd.Index(names, name="model"))
    table["clips_per_second"] = setup.batch / table["seconds"]
    table["gmacs"] = [count_work(name, config, setup.work, device) / 1e9 for name in names]
    table["reason"] = [reasons.get(name, "") for name in names]
    sizes = {name: getattr(config, name) for name in ("frames", "image_size", "width")}
    excluded = config.soft_mask.excluded_per_step if config.soft_mask else 0
    torch.compiler.reset()
    return table.reset_index().assign(**asdict(setup), **sizes, excluded_per_step=excluded, repeats=repeats)


def soft_mask_share(config: ModelConfig, device: torch.device | str = "cpu", batch: int = 1) -> float:
    """Share of the forward pass's time spent on scoring and masking, for tokens of the same shape; fp32, eager."""
    device = torch.device(device)
    forward = prepare("adatosk", config, Setup(batch=batch), device)
    mask = for_inference(AdaTosk(config).to(device)).soft_mask
    if mask is None:
        raise ValueError("a model without soft mask has no share of it to time")
    tokens = torch.randn(batch, config.steps, config.visible_patches, config.width, device=device)
    with torch.no_grad():
        times = time_pair({"forward": forward, "mask": lambda: mask(tokens)}, repeats=9, device=device)
    return 1 / times.loc["mask", "speed_up"]


def benchmark(
    device: torch.device | str | None = None,
    config: ModelConfig = MODELS["adatosk_base"],
    setups: Sequence[Setup] | None = None,
    repeats: int = 3,
    memory: bool = True,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Time every contender in every setup.

    Args:
        device: by default the GPU if there is one, otherwise the CPU.
        config: sizes, and AdaTosk's masks.
        repeats: see :func:`measure`.
        setups: see :class:`adatosk.cost.contenders.Setup`; those of :func:`default_setups` by default.
        memory: also measure peak memory of uncompiled fp32 setups, which builds each contender again.
        report: called with one line per setup.

    Returns:
        :func:`measure`'s rows of every setup with ``sweep`` empty, the rates of :func:`matrix_peaks`, ``peak_share`` of
        the best one, ``memory_mib`` and ``soft_mask_share`` (NaN if not measured), and the provenance. The peak is the
        higher of those before and after a setup, because a machine's speed drifts over the minutes that this takes.
    """
    device = run_device(device)
    tables = []
    for setup in default_setups(device) if setups is None else setups:
        work = partial(measure, config, setup, CONTENDERS, device, repeats)
        table, peaks = _between_peaks(work, device, dtype_of(setup.precision))
        table = table.assign(sweep="", **peaks)
        table["peak_share"] = 2 * table["gmacs"] * table["clips_per_second"] / table["peak_gflops"]
        wanted = memory and setup.precision == "fp32" and not setup.compiled
        table["memory_mib"] = [peak_memory(name, config, setup, device) if wanted else nan for name in table["model"]]
        plain = setup == Setup(batch=setup.batch) and config.soft_mask is not None
        share = soft_mask_share(config, device, setup.batch) if plain else nan
        table["soft_mask_share"] = [share if name == "adatosk" else nan for name in table["model"]]
        tables.append(table)
        _tell(table, setup, report)
    return pd.concat(tables, ignore_index=True).assign(**provenance(device))


def _between_peaks(
    work: Callable[[], pd.DataFrame], device: torch.device | str, dtype: torch.dtype
) -> tuple[pd.DataFrame, dict[str, float]]:
    """The result of ``work``, and the higher of :func:`matrix_peaks` before and after it."""
    before = matrix_peaks(device, dtype)
    table = work()
    after = matrix_peaks(device, dtype)
    return table, {name: max(before[name], after[name]) for name in before}


def _tell(table: pd.DataFrame, what: object, report: Callable[[str], None]) -> None:
    report(f"{what}: " + ", ".join(f"{row.model} {row.seconds:.4f} s{row.reason}" for row in table.itertuples()))


def grown(config: ModelConfig, **sizes: int) -> ModelConfig:
    """``config`` at other sizes, with the same number of tokens excluded per step or, if necessary, fewer."""
    if config.soft_mask is None:
        return config.change(**sizes)
    bare = config.change(soft_mask=None, **sizes)
    most = (bare.visible_patches - 1) // bare.steps
    excluded = min(config.soft_mask.excluded_per_step, most)
    top_k = min(config.soft_mask.top_k, bare.steps - 1)
    return config.change(**sizes, soft_mask={"excluded_per_step": excluded, "top_k": top_k})


def growth(
    device: torch.device | str | None = None,
    config: ModelConfig = MODELS["adatosk_base"],
    models: Sequence[str] = GROWING,
    sweeps: dict[str, tuple[int, ...]] = SWEEPS,
    repeats: int = 2,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Growth of the forward pass's cost with frames, resolution and batch: fp32, eager, one of them at a time.

    Args:
        device, config, models, repeats, report: see :func:`benchmark`.
        sweeps: values of ``frames``, ``image_size`` and ``batch``.

    Returns:
        :func:`measure`'s rows with ``sweep`` naming the size that grows, and the provenance. If fewer tokens are
        visible, fewer can be excluded: ``excluded_per_step`` gives their number (:func:`grown`).
    """
    device = run_device(device)
    tables = []
    for sweep, values in sweeps.items():
        for value in values:
            sizes = {} if sweep == "batch" else {sweep: value}
            setup = Setup(batch=value if sweep == "batch" else 1)
            table = measure(grown(config, **sizes), setup, models, device, repeats, warmup=0)
            tables.append(table.assign(sweep=sweep))
            _tell(table, f"{sweep} {value}", report)
    return pd.concat(tables, ignore_index=True).assign(**provenance(device))


def table2_times(
    device: torch.device | str | None = None,
    config: ModelConfig = MODELS["adatosk_base"],
    repeats: int = 3,
    report: Callable[[str], None] = print,
) -> pd.DataFrame:
    """Time of every feasible cell of Table 2, of the model without soft mask and without any mask, alternating.

    It is that of one clip's forward pass in fp32, eager, for comparison with the counts of
    :func:`adatosk.cost.operations.table2_cost`.

    Returns:
        one row per model: :func:`time_pair`'s columns, ``gmacs``, ``mask_ratio``, ``excluded_per_step``, the peak (the
        higher one of before and after them) and each one's share of it, ``sweep`` saying ``table 2``, and the
        provenance.
    """
    device = run_device(device)
    bare = config.change(soft_mask=None)
    configs = {"every patch": bare.change(mask_ratio=0.0), f"{bare.mask_ratio:.0%} hidden, no soft mask": bare}
    for cell in table2_cost(config).query("feasible").itertuples():
        changed = config.change(mask_ratio=cell.mask_ratio, soft_mask={"excluded_per_step": cell.excluded_per_step})
        configs[f"{cell.mask_ratio:.0%} hidden, r = {cell.r}"] = changed
    runs = {name: prepare("adatosk", cell, Setup(), device) for name, cell in configs.items()}
    table, peaks = _between_peaks(partial(time_pair, runs, repeats, device=device), device, torch.float32)
    table["gmacs"] = [hand_count(cell).total() / 1e9 for cell in configs.values()]
    table["mask_ratio"] = [cell.mask_ratio for cell in configs.values()]
    table["excluded_per_step"] = [c.soft_mask.excluded_per_step if c.soft_mask else 0 for c in configs.values()]
    table["peak_share"] = 2 * table["gmacs"] / table["seconds"] / peaks["peak_gflops"]
    table = table.reset_index().assign(sweep="table 2", reason="", repeats=repeats, **asdict(Setup()), **peaks)
    _tell(table, "table 2", report)
    return table.assign(**provenance(device))


def write_table(table: pd.DataFrame, folder: Path = RESULTS, suffix: str = "") -> Path:
    """Write a table as ``<folder>/<device><suffix>.csv``, replacing an earlier one of that device; returns the path."""
    slug = re.sub(r"[^a-z0-9]+", "-", table["device"].iloc[0].lower()).strip("-")
    path = folder / f"{slug}{suffix}.csv"
    write_csv(path, table, index=False, float_format="%.6g")
    return path


def recorded(suffix: str = "", folder: Path = RESULTS) -> dict[str, pd.DataFrame]:
    """The tables that :func:`write_table` wrote with ``suffix``, by device; empty when there are none."""
    others = () if suffix else OTHERS
    paths = [path for path in sorted(folder.glob(f"*{suffix}.csv")) if not path.stem.endswith(others)]
    tables = [read_csv(path) for path in paths]
    return {table["device"].iloc[0]: table for table in tables}


def soft_mask_savings(table: pd.DataFrame) -> pd.DataFrame:
    """What the soft mask saves of one clip's forward pass in fp32, in each session that timed it with and without.

    Args:
        table: from :func:`recorded` or :func:`table2_times`.

    Returns:
        one row per session: ``operations`` and ``time``, the fractions that are saved.
    """
    table = table[(table["work"] == "forward") & (table["precision"] == "fp32") & ~table["compiled"].astype(bool)]
    table = table[table["batch"] == 1].assign(sweep=table["sweep"].fillna("benchmark"))
    rows = []
    for name in ("benchmark", "batch", "table 2"):  # sessions with models of the same size
        session = table[table["sweep"] == name]
        bare = session[session["model"].isin(["adatosk without soft mask", "70% hidden, no soft mask"])]
        masked = session[session["model"].isin(["adatosk", "70% hidden, r = 2"])]
        for one, other in zip(masked.itertuples(), bare.itertuples(), strict=True):
            rows.append((name, 1 - one.gmacs / other.gmacs, 1 - one.seconds / other.seconds))
    return pd.DataFrame(rows, columns=["session", "operations", "time"]).set_index("session")


def record(
    config: ModelConfig,
    device: torch.device | str | None = None,
    quick: bool = False,
    sweeps: bool = False,
    folder: Path = RESULTS,
) -> Path:
    """Time the models, print the results and write the table; returns its path.

    Args:
        config: sizes of all contenders.
        device: by default the GPU if there is one, otherwise the CPU.
        quick: one clip, fp32, not compiled, no memory.
        sweeps: also how the cost grows, and Table 2's cells.
    """
    setups = [Setup(work) for work in WORKS] if quick else None
    table = benchmark(device, config, setups=setups, memory=not quick)
    print(table[SHOWN].to_string(index=False, float_format="{:.3f}".format))
    if sweeps:
        table = pd.concat([table, growth(device, config), table2_times(device, config)], ignore_index=True)
    return write_table(table, folder)
