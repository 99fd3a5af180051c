"""Where a number comes from: commit, lock, device and versions, written beside every result."""

import hashlib
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path

import torch

from adatosk.utils.project import IS_CHECKOUT, PROJECT


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, or ``"missing"``."""
    if not path.is_file():
        return "missing"
    with path.open("rb") as file:  # piece by piece, for a checkpoint may be larger than the memory
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_commit() -> str:
    """The commit the code is at, ``-dirty`` when the package differs from it; outside a checkout the package's version.

    ``"unknown"`` where the code lies in no repository of its own.
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
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def device_name(device: torch.device | str = "cpu") -> str:
    """Name of the GPU, or of the processor with the number of threads in use."""
    if torch.device(device).type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        model = names[0] if names else model
    return f"{model}, {torch.get_num_threads()} threads"


def provenance(device: torch.device | str = "cpu") -> dict[str, str]:
    """What has to be known to make a number again, apart from configuration, seed and manifest."""
    return {
        "commit": git_commit(),
        "lock": file_digest(PROJECT / "requirements.lock") if IS_CHECKOUT else "missing",
        "device": device_name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
