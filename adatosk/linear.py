"""Linear layers whose float32 products run through oneDNN on a CPU.

torch hands them to MKL, which stops at AVX2 on AMD processors; oneDNN uses what the processor has. On an EPYC with
AVX-512 its products are 2.2 times as fast at every size that the models here use, forward and backward (see
``results/benchmark``). Half precision goes through oneDNN anyway. Where oneDNN does not apply (GPU, autocast, compiled,
exported or traced models) this is ``torch.nn.functional.linear``.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b of contiguous matrices, by the operator that torch's compiler uses for it."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _flops(x: tuple[int, ...], weight: tuple[int, ...], *_: object, **__: object) -> int:
    return 2 * math.prod(x) * weight[0]


# For torch's FlopCounterMode, which does not know oneDNN's operator.
FLOPS = {torch.ops.mkldnn._linear_pointwise: _flops}


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        grad, rows = grad.contiguous(), grad.reshape(-1, grad.shape[-1])
        to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            _product(grad, weight.t()) if to_x else None,
            _product(rows.t(), x.reshape(rows.shape[0], -1).t()) if to_weight else None,
            rows.sum(dim=0) if to_bias else None,
        )


def uses_onednn(x: Tensor) -> bool:
    """Whether :func:`linear` of ``x`` runs through oneDNN."""
    return (
        x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, as ``torch.nn.functional.linear``: ``(..., in)`` to ``(..., out)``."""
    if not uses_onednn(x):
        return F.linear(x, weight, bias)
    return _OneDnnLinear.apply(x.contiguous(), weight.contiguous(), bias)


class Linear(nn.Linear):
    """``torch.nn.Linear`` through :func:`linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def through_onednn(model: nn.Module) -> nn.Module:
    """Let every ``torch.nn.Linear`` of a model, ours or a library's, run through :func:`linear`; returns the model."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear  # same parameters, same names, another product
    return model
