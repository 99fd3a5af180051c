"""Optimiser, schedule and step of section 4.1: AdamW, linear scaling, cosine to 0 after a linear warm-up."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from adatosk.clips import model_pixels
from adatosk.config import ModelConfig, TrainConfig
from adatosk.losses import Losses, total_loss
from adatosk.model import AdaTosk
from adatosk.tokens import tube_mask
from adatosk.training.graphs import StepGraph

if TYPE_CHECKING:
    from accelerate import Accelerator
    from timm.scheduler import CosineLRScheduler


def make_optimizer(model: nn.Module, train: TrainConfig) -> Optimizer:
    """AdamW over all parameters, without weight decay on biases, norms and the mask token; on a GPU in one kernel."""
    # Here, for timm brings torchvision and torch's compiler along: seconds that only a run needs to spend.
    from timm.optim import create_optimizer_v2

    # A CPU's runs keep their bits.
    fused: dict[str, Any] = {"fused": True} if next(model.parameters()).device.type == "cuda" else {}
    return create_optimizer_v2(
        model, opt="adamw", lr=train.learning_rate, weight_decay=train.weight_decay, betas=train.betas, **fused
    )


def make_schedule(optimizer: Optimizer, train: TrainConfig, steps_per_epoch: int) -> CosineLRScheduler:
    """Linear from 0 over the warm-up epochs, then half a cosine to 0; set it with ``step_update(step)``."""
    from timm.scheduler import CosineLRScheduler

    warmup = train.warmup_epochs * steps_per_epoch
    return CosineLRScheduler(
        optimizer,
        t_initial=max(train.epochs * steps_per_epoch - warmup, 1),
        lr_min=0.0,
        warmup_t=warmup,
        warmup_lr_init=0.0,
        warmup_prefix=True,
        t_in_epochs=False,
    )


def optimizer_step(
    model: AdaTosk,
    batch: dict[str, Tensor],
    optimizer: Optimizer,
    train: TrainConfig,
    accelerator: Accelerator,
    generator: torch.Generator,
    graph: StepGraph | None = None,
) -> Losses:
    """One step on one batch: draw hard masks, run both branches, compute both losses, update with AdamW.

    Args:
        batch: clips as :func:`adatosk.clips.model_pixels` takes them, and ``label`` int64 ``(B,)``.
        generator: random generator of the hard masks.
        graph: holds forward and backward pass, instead of launching each kernel.
    """
    config: ModelConfig = accelerator.unwrap_model(model).config
    device = accelerator.device
    pixels, labels = model_pixels(batch, config.image_size, device), batch["label"].to(device)
    visible = tube_mask(len(pixels), config.patches, config.mask_ratio, generator)

    def passes(pixels: Tensor, labels: Tensor, visible: Tensor) -> Losses:
        with accelerator.autocast():
            count = config.visible_patches  # as tube_mask draws them
            output = model(pixels, visible, reconstruct=train.rec_weight > 0, count=count)
            losses = total_loss(output, pixels, labels, config, train)
        optimizer.zero_grad(set_to_none=True)
        accelerator.backward(losses.total)
        return losses.detached()

    losses = passes(pixels, labels, visible) if graph is None else graph(passes, pixels, labels, visible)
    if train.clip_grad is not None:
        accelerator.clip_grad_norm_(model.parameters(), train.clip_grad)
    optimizer.step()
    return losses
