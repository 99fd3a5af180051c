"""The processes of a run and their devices, as accelerate connects them."""

import os
import socket

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DataLoaderConfiguration

from adatosk.utils.devices import VARIABLE, exact_products


def processes() -> int:
    """Number of processes that train this run together, as torchrun or srun says."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def make_accelerator(precision: str) -> Accelerator:
    """This process's device, connected with the other processes.

    Args:
        precision: ``no`` for float32, or ``bf16``.

    Raises:
        ValueError: the device cannot connect that many processes.
    """
    # accelerate fixes a process's precision at first use, but one notebook may train runs in different precisions.
    # One process alone may also have been on another device before.
    AcceleratorState._reset_state(reset_partial_state=processes() == 1)
    # On a machine with a GPU, batches are in pinned memory, so that copies can overlap with computation.
    loading = DataLoaderConfiguration(non_blocking=True)
    # accelerate leaves torchrun's processes without a device of their own as so many copies unless told: then gloo.
    cpu = os.environ.get(VARIABLE) == "cpu" or (processes() > 1 and not torch.accelerator.is_available())
    accelerator = Accelerator(cpu=cpu, mixed_precision=precision, dataloader_config=loading)
    if accelerator.num_processes != processes():
        raise ValueError(
            f"{processes()} processes were started, and {accelerator.device} cannot connect them: start one"
        )
    if accelerator.device.type == "cuda":
        exact_products()
    return accelerator


def process_in_words(accelerator: Accelerator) -> str:
    """This process among those of the run, its node and its device."""
    rank = f"process {accelerator.process_index} of {accelerator.num_processes}"
    node = os.environ.get("SLURMD_NODENAME", socket.gethostname())
    return f"{rank} on {node}, {accelerator.device}"
