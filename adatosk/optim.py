"""Optimiser and schedule of section 4.1: AdamW, linear scaling, cosine to 0 after a linear warm-up."""

from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from adatosk.config import TrainConfig


def make_optimizer(model: nn.Module, train: TrainConfig) -> Optimizer:
    """AdamW over all parameters, without weight decay on biases, norms and the mask token."""
    return create_optimizer_v2(
        model, opt="adamw", lr=train.learning_rate, weight_decay=train.weight_decay, betas=train.betas
    )


def make_schedule(optimizer: Optimizer, train: TrainConfig, steps_per_epoch: int) -> CosineLRScheduler:
    """Linear from 0 over the warm-up epochs, then half a cosine to 0; set it with ``step_update(step)``."""
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
