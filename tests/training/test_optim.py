import math

import pytest
import torch

from adatosk.config import TrainConfig
from adatosk.model import create_model
from adatosk.training.optim import make_optimizer, make_schedule


def test_learning_rate_scales_linearly_with_the_batch():
    assert TrainConfig().learning_rate == pytest.approx(1.5e-4 * 128 / 256)
    assert TrainConfig(batch_size=512).learning_rate == pytest.approx(3e-4)


def test_schedule_equals_the_written_formula():
    train = TrainConfig(epochs=10, warmup_epochs=2, batch_size=256, base_lr=1e-3)
    optimizer = make_optimizer(create_model("adatosk_tiny"), train)
    schedule = make_schedule(optimizer, train, steps_per_epoch=5)
    for step in range(51):
        schedule.step_update(step)
        expected = 1e-3 * (step / 10 if step < 10 else 0.5 * (1 + math.cos(math.pi * (step - 10) / 40)))
        assert optimizer.param_groups[0]["lr"] == pytest.approx(expected, abs=1e-9), step


def test_only_matrices_decay():
    model = create_model("adatosk_tiny")
    optimizer = make_optimizer(model, TrainConfig())
    decayed = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    every = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert every == {id(p) for p in model.parameters()}
    for name, parameter in model.named_parameters():
        bare = parameter.ndim <= 1 or name == "mask_token"
        assert (id(parameter) in decayed) == (not bare), name
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.param_groups[0]["betas"] == (0.9, 0.95)
