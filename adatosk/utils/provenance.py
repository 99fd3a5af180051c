"""Provenance of a result: commit, lock file, device and versions, stored with every result."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from adatosk.utils.files import opened
from adatosk.utils.project import IS_CHECKOUT, PROJECT, PUBLISHED
from adatosk.utils.strict import parse_json

if TYPE_CHECKING:  # importing it takes seconds, and reading results needs none of it
    import torch


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, or ``"missing"``."""
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:  # in pieces, because a checkpoint may be larger than the memory
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_commit() -> str:
    """The current commit, with ``-dirty`` if the package differs from it; outside a checkout, the package's version.

    ``"unknown"`` if the code is not in its own repository.
    """
    if not IS_CHECKOUT:
        return f"adatosk {version('adatosk')}"
    try:
        if Path(_git("rev-parse", "--show-toplevel")).resolve() != PROJECT:
            return "unknown"  # an unpacked archive within somebody's repository
        commit = _git("rev-parse", "HEAD")
        return commit + ("-dirty" if _git("status", "--porcelain", "--", "adatosk", "requirements.lock") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PROJECT), *arguments]
    return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout.strip()


def device_name(device: torch.device | str = "cpu") -> str:
    """Name of the GPU, or of the CPU with the number of threads in use."""
    import torch

    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        lines = info.read_text(encoding="utf-8").splitlines()
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        model = names[0] if names else model
    threads = torch.get_num_threads()
    return f"{model}, {threads} thread{'s' * (threads > 1)}"


# Environment variables that change how libraries compute.
_NUMERIC = (
    "ATEN_CPU_CAPABILITY",
    "CUBLAS_WORKSPACE_CONFIG",
    "DNNL_DEFAULT_FPMATH_MODE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_ENABLE_INSTRUCTIONS",
    "NVIDIA_TF32_OVERRIDE",
    "ONEDNN_DEFAULT_FPMATH_MODE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENCV_IPP",
    "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE",
)


def provenance(device: torch.device | str = "cpu") -> dict[str, str]:
    """What is needed to reproduce a number, apart from configuration, seed and manifest.

    It is bit-identical only on the same kind of device, with the same versions, number of threads and instruction set:
    otherwise sums are split, and so rounded, differently. ``instructions`` names the instruction set that torch uses,
    such as AVX2, and any environment variables that change how libraries compute.
    """
    import torch

    instructions = [torch.backends.cpu.get_cpu_capability()]
    return {
        "commit": git_commit(),
        "lock": file_digest(PROJECT / "requirements.lock") if IS_CHECKOUT else "missing",
        "device": device_name(device),
        "threads": str(torch.get_num_threads()),
        "instructions": ", ".join(instructions + [f"{k}={os.environ[k]}" for k in _NUMERIC if k in os.environ]),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def scores_of(weights: Path) -> dict | None:
    """``metrics.json`` of ``runs/<run id>/checkpoints/<name>/model.safetensors``; of weights that ship, it lies beside.

    ``None`` for a file at another location, or without scores.
    """
    checkpoints = weights.absolute().parent.parent
    beside, scores = weights.with_name("metrics.json"), checkpoints.parent / "metrics.json"
    if beside.is_file():
        return read_metrics(beside)
    return read_metrics(scores) if checkpoints.name == "checkpoints" and scores.is_file() else None


def recorded_digest(weights: Path, scores: dict | None) -> str | None:
    """The SHA-256 of weights in their scores (:func:`scores_of`); weights that ship are named there as ``last``.

    ``None`` without scores, or with older ones that contain no digest.
    """
    name = "last" if weights.with_name("metrics.json").is_file() else weights.parent.name
    return (scores or {}).get("weights", {}).get(name)


def read_metrics(path: Path) -> dict:
    """A finished run's ``metrics.json``; ``ValueError`` names one that is incomplete or damaged.

    The earliest runs have no digest of their scores; of those that are published, git has one.
    """
    advice = restoring(path)
    try:
        found = parse_json(path.read_bytes())
    except ValueError as error:
        raise ValueError(f"{path}: incomplete ({error}): {advice}") from error
    if not isinstance(found, dict) or "last" not in found:
        raise ValueError(f"{path}: not the scores of a run: {advice}")
    # By two names, so that no damage to one makes the file an early one.
    if "sha256" in found or "files" in found:
        found = opened(found)
        if found is None:
            raise ValueError(f"{path}: damaged, because its SHA-256 differs from the one in it: {advice}")
    made_with = found.get("provenance", {})
    if "device" in made_with:  # as the earliest runs wrote it
        made_with["device"] = made_with["device"].replace(", 1 threads", ", 1 thread")
    return found


def restoring(path: Path) -> str:
    """What to do about a damaged file of a run."""
    if (path.parent / "checkpoints" / "finished").is_dir():
        return "a training was killed while it moved its results there: start it again, which only completes that"
    published = path.absolute().is_relative_to(PUBLISHED)
    return "git checkout restores it" if published else "delete the run's folder to train it again"
