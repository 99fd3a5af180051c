"""Where the time of a training step goes: the summary of torch.profiler's trace, by part of the model."""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile, record_function

from adatosk.config import ModelConfig, TrainConfig
from adatosk.cost.timing import synchronise
from adatosk.losses import total_loss
from adatosk.model import AdaTosk
from adatosk.onednn import through_onednn
from adatosk.presets import MODELS
from adatosk.tokens import tube_mask
from adatosk.training.optim import make_optimizer
from adatosk.utils import seeds
from adatosk.utils.devices import run_device
from adatosk.utils.provenance import device_name

ENCODER, SOFT_MASK, DECODER, HEAD = "encoder", "soft mask", "decoder", "classifier"
LOSS, BACKWARD, UPDATE = "targets and losses", "backward pass", "AdamW's update"
_SCORES = "scores inside the encoder"
PARTS = (ENCODER, SOFT_MASK, DECODER, HEAD, LOSS, BACKWARD, UPDATE)


def profile_step(
    config: ModelConfig | None = None,
    batch: int | None = None,
    device: torch.device | str | None = None,
    steps: int = 3,
) -> pd.DataFrame:
    """Time of each part of a training step, kernel by kernel: bf16 on a GPU, float32 on a CPU; not compiled.

    Args:
        config, batch: by default the paper's model on 64 clips on a GPU, and profile demo's on 32 on a CPU.
        device: as for :func:`adatosk.utils.devices.run_device`.
        steps: number of steps, after one that is not counted.

    Returns:
        one row per part, ``PARTS``, by name: ``milliseconds`` of a step and ``share``, their fraction of all parts;
        on a GPU its kernels'. The forward pass is told part by part; the encoder's is without the soft mask's, which
        scores tokens inside it. ``attrs`` hold the ``device`` and the ``batch``.
    """
    device = run_device(device)
    gpu = device.type == "cuda"
    config = MODELS["adatosk_base" if gpu else "adatosk_small"] if config is None else config
    batch = (64 if gpu else 32) if batch is None else batch
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # else the profiler writes lines of its own to a notebook
    step = _marked_step(config, batch, device)
    step()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])]
    with profile(activities=activities) as trace:
        for _ in range(steps):
            step()
        synchronise(device)
    times = _times(trace, gpu)
    times[SOFT_MASK] += times[_SCORES]
    times[ENCODER] -= times.pop(_SCORES)
    table = pd.DataFrame({"milliseconds": pd.Series(times) / steps})
    table["share"] = table["milliseconds"] / table["milliseconds"].sum()
    table.attrs = {"device": device_name(device), "batch": batch}
    return table.rename_axis("part")


def soft_mask_share(table: pd.DataFrame) -> float:
    """The soft mask's share of the forward pass, in a table of :func:`profile_step`."""
    forward = table.loc[[ENCODER, SOFT_MASK, DECODER, HEAD], "milliseconds"]
    return float(forward[SOFT_MASK] / forward.sum())


def _times(trace: profile, gpu: bool) -> dict[str, float]:
    """Milliseconds of all steps by marked part; on a GPU, what its kernels took."""
    times, kernels = dict.fromkeys((*PARTS, _SCORES), 0.0), 0.0
    for event in trace.key_averages():
        taken = event.device_time_total if gpu else event.cpu_time_total
        if event.key in times:
            # A GPU's part is listed twice, where it was launched and where it ran.
            times[event.key] = max(times[event.key], taken / 1000)
        elif gpu:
            kernels += event.self_device_time_total / 1000
    if gpu:  # launched by a thread of its own, which the mark does not cover
        times[BACKWARD] = kernels - sum(times[part] for part in PARTS if part != BACKWARD)
    return times


def _marked_step(config: ModelConfig, batch: int, device: torch.device) -> Callable[[], None]:
    """A training step as :mod:`adatosk.train` takes it, with its parts marked for the profiler."""
    torch.manual_seed(0)
    model, train, draw = AdaTosk(config).to(device).train(), TrainConfig(), seeds.generator(0, 0)
    if device.type == "cpu":
        through_onednn(model)
    optimizer = make_optimizer(model, train)
    shape = (batch, 3, config.frames, config.image_size, config.image_size)
    video = torch.randint(256, shape, dtype=torch.uint8, generator=draw).to(device)
    labels = torch.arange(batch, device=device) % len(config.classes)
    model.encoder.encode = _marked(ENCODER, model.encoder.encode)
    parts: dict[str, torch.nn.Module] = {DECODER: model.decoder, HEAD: model.head}
    if model.soft_mask is not None:
        model.soft_mask.score = _marked(_SCORES, model.soft_mask.score)
        parts[SOFT_MASK] = model.soft_mask
    for name, module in parts.items():
        module.forward = _marked(name, module.forward)

    def step() -> None:
        visible = tube_mask(batch, config.patches, config.mask_ratio, draw)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=device.type == "cuda"):
            output = model(video, visible)
            with record_function(LOSS):
                loss = total_loss(output, video, labels, config, train).total
        optimizer.zero_grad(set_to_none=True)
        with record_function(BACKWARD):
            loss.backward()
        with record_function(UPDATE):
            optimizer.step()

    return step


def _marked(name: str, function: Callable) -> Callable:
    @wraps(function)
    def run(*args: Any, **options: Any) -> Any:
        with record_function(name):
            return function(*args, **options)

    return run
