"""Linear layers whose float32 products run through oneDNN on a CPU.

torch hands them to MKL, which stops at AVX2 on AMD processors; oneDNN uses what the processor has. On an EPYC with
AVX-512 its products are 2.2 times as fast at every size that the models here use, forward and backward (see
``results/benchmark``). Half precision goes through oneDNN anyway. Where oneDNN does not apply (GPU, autocast, compiled,
exported or traced models) this is ``torch.nn.functional.linear``. :func:`for_inference` goes further where nothing is
learned any more.
"""

import math

import torch
import torch.nn.functional as F
from timm.layers import Mlp
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    """x Wᵀ + b of contiguous matrices, by the operator that torch's compiler uses for it; ``then`` may be ``gelu``."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "none")


def _flops(x: tuple[int, ...], weight: tuple[int, ...], *_: object, **__: object) -> int:
    return 2 * math.prod(x) * weight[0]


# For torch's FlopCounterMode, which does not know oneDNN's operator.
FLOPS = {torch.ops.mkldnn._linear_pointwise: _flops}


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of x, W and b, of those that are needed; transposed operands need no copy."""
        x, weight = ctx.saved_tensors
        grad, rows = grad.contiguous(), grad.reshape(-1, grad.shape[-1])
        to_x, to_weight, to_bias = ctx.needs_input_grad
        return (
            product(grad, weight.t()) if to_x else None,
            product(rows.t(), x.reshape(rows.shape[0], -1).t()) if to_weight else None,
            rows.sum(dim=0) if to_bias else None,
        )


def uses_onednn(x: Tensor) -> bool:
    """Whether :func:`linear` of ``x`` runs through oneDNN."""
    return (
        # First, for what follows would cut a compiler's graph in two.
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and x.numel() > 0
        and torch.backends.mkldnn.enabled
        and torch.backends.mkldnn.is_available()
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
    )


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b, as ``torch.nn.functional.linear``: ``(..., in)`` to ``(..., out)``."""
    if weight.is_mkldnn:  # packed by for_inference
        return product(x.contiguous(), weight, bias)
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


class _FusedMlp(Mlp):
    """timm's two layers with the GELU between them done where the first product's result still is in the cache."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(product(x.contiguous(), self.fc1.weight, self.fc1.bias, "gelu"))


@torch.no_grad()
def for_inference(model: nn.Module, dtype: torch.dtype = torch.float32) -> nn.Module:
    """Make a model as fast to run as it gets without compiling; returns it, changed.

    It is put into evaluation mode and its weights are converted once, where autocast would convert them in each pass.
    On a CPU they are also packed as oneDNN reads them, and our MLPs take their GELU along with the product. After that
    the model runs under ``torch.no_grad()`` or ``inference_mode()`` only; it cannot be trained, saved, moved, compiled
    or exported.

    Args:
        dtype: float32 or bfloat16; the input has to have it, too.
    """
    model = through_onednn(model.eval().to(dtype))
    if not (torch.backends.mkldnn.enabled and torch.backends.mkldnn.is_available()):
        return model
    linears = [m for m in model.modules() if type(m) is Linear and m.weight.device.type == "cpu"]
    for module in linears:
        module.weight = nn.Parameter(torch.ops.mkldnn._reorder_linear_weight(module.weight), requires_grad=False)
    for module in model.modules():
        plain = type(module) is Mlp and type(module.act) is nn.GELU and type(module.norm) is nn.Identity
        if plain and module.fc1 in linears:
            module.__class__ = _FusedMlp
    return model
