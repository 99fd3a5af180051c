"""The device that models run on: the one that is named, or the GPU if there is one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

M = TypeVar("M", bound=nn.Module)

# Names the device of every command, run and notebook that is not told another one, such as cpu on a machine with a GPU.
VARIABLE = "ADATOSK_DEVICE"


def run_device(named: torch.device | str | None = None) -> torch.device:
    """The device to run a model on.

    Args:
        named: ``cpu``, ``cuda`` or ``cuda:1``; by default what the environment variable ``ADATOSK_DEVICE`` names, or
            else the GPU if there is one, or else the CPU.

    Raises:
        ValueError: another device is named, or a GPU that is not there.
    """
    asked = str(named or os.environ.get(VARIABLE) or ("cuda" if torch.cuda.is_available() else "cpu"))
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise ValueError(f"unknown device '{asked}': name cpu, cuda or, of several GPUs, cuda:1") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device '{asked}': models run on cpu and cuda")
    if device.type == "cuda":
        there = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= there:
            raise ValueError(f"device '{asked}': torch {torch.__version__} sees {there} GPUs here: name cpu or another")
        exact_products()
    return device


@contextmanager
def moved(model: M, named: torch.device | str | None = None) -> Iterator[M]:
    """The model on :func:`run_device`; afterwards it is where it was."""
    before = next(model.parameters()).device
    try:
        yield model.to(run_device(named))
    finally:
        model.to(before)


def exact_products() -> None:
    """Let a GPU multiply float32 as float32, and not as TF32, whose 10 bits give other logits than a CPU's."""
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
