"""Timing of alternating workloads, and a device's best rate of matrix products."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from adatosk.onednn import linear


def synchronise(device: torch.device | str) -> None:
    """Wait until a GPU has finished its work."""
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device | str) -> float:
    """Seconds until the work is done, on a GPU as well."""
    synchronise(device)
    start = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - start


def matrix_peak(
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    sizes: Sequence[int] | None = None,
    repeats: int = 5,
    product: Callable[[Tensor, Tensor], Tensor] = torch.matmul,
) -> float:
    """Best rate of a square matrix product measured on this machine, in FLOP/s (2 per multiply-accumulate).

    Args:
        sizes: sides to try, by default large enough to saturate the device.
        repeats: number of timed products of each size, after an untimed one.
        product: multiplies two square matrices.
    """
    if sizes is None:
        sizes = (4096, 8192) if torch.device(device).type == "cuda" else (1024, 2048)
    best = 0.0
    for size in sizes:
        a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
        product(a, b)
        best = max(best, *(2 * size**3 / seconds(lambda a=a, b=b: product(a, b), device) for _ in range(repeats)))
    return best


def matrix_peaks(device: torch.device | str, dtype: torch.dtype, **options: Any) -> dict[str, float]:
    """In GFLOP/s: torch's own product, the linear layers' (oneDNN's on a CPU), and the better one, ``peak_gflops``."""
    products = {"peak_torch_gflops": torch.matmul, "peak_linear_gflops": linear}
    peaks = {name: matrix_peak(device, dtype, product=product, **options) / 1e9 for name, product in products.items()}
    return {"peak_gflops": max(peaks.values()), **peaks}


def time_pair(
    candidates: Mapping[str, Callable[[], object]],
    repeats: int = 5,
    warmup: int = 1,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """Time alternating candidates, with each round starting with a different one.

    Args:
        candidates: functions to call, by name; the first is the reference.
        repeats: number of timed rounds.
        warmup: number of untimed rounds before them, which include compilation.

    Returns:
        one row per candidate, indexed by name: ``seconds`` (median), ``fastest``, ``slowest``, and ``speed_up``, the
        median over the rounds of the reference's seconds divided by the candidate's in the same round.
    """
    if not candidates or repeats < 1 or warmup < 0:
        raise ValueError(f"needs candidates, repeats >= 1 and warmup >= 0, got {len(candidates)}, {repeats}, {warmup}")
    names = list(candidates)
    rounds: list[dict[str, float]] = []
    for number in range(warmup + repeats):
        turn = number % len(names)
        rounds.append({name: seconds(candidates[name], device) for name in names[turn:] + names[:turn]})
    rows = []
    for name in names:
        times = [timed[name] for timed in rounds[warmup:]]
        ratios = [timed[names[0]] / timed[name] for timed in rounds[warmup:]]
        rows.append((statistics.median(times), min(times), max(times), statistics.median(ratios)))
    index = pd.Index(names, name="model")
    return pd.DataFrame(rows, index=index, columns=["seconds", "fastest", "slowest", "speed_up"])
