"""Matrix products of a model on a CPU through oneDNN; opt-in, and independent of the rest of the package.

torch uses MKL for them, which is limited to AVX2 on AMD processors; oneDNN uses everything the processor has. On an
EPYC with AVX-512 its products are 2.2 times as fast at every size that the models here use, forward and backward (see
``results/benchmark``). Half precision goes through oneDNN anyway. Where oneDNN does not apply (GPU, autocast, compiled,
exported or traced models) this falls back to ``torch.nn.functional.linear``. :func:`for_inference` goes further for
models that are no longer trained.
"""

import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from adatosk import transformer
from adatosk.transformer import Mlp, join_heads, split_heads


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None, then: str = "none") -> Tensor:
    """x Wᵀ + b of contiguous matrices, by the operator that torch's compiler uses; ``then`` may be ``gelu``."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, then, [], "none")


# For torch's FlopCounterMode, which does not know oneDNN's operator: from the shapes of x and W.
FLOPS = {torch.ops.mkldnn._linear_pointwise: lambda x, weight, *_, **__: 2 * math.prod(x) * weight[0]}


class _OneDnnLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of those of x, W and b that need one; transposed operands need no copy."""
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
    return bool(
        # Checked first, because the checks below would break a compiler's graph.
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


# Sequence length from which oneDNN's faster products make up for looping over the heads.
LONG = 384


def attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention ``(B, h, n, d)``: torch's fused kernel, except in two cases of inference on a CPU.

    In bfloat16, plain products take half its time; in float32 on long sequences, oneDNN's take two thirds.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled() or q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v)
    if q.dtype == torch.bfloat16:
        return (q * q.shape[-1] ** -0.5 @ k.transpose(-1, -2)).softmax(dim=-1) @ v
    if uses_onednn(q) and q.shape[-2] >= LONG:
        return _attention_by_head(q, k, v)
    return F.scaled_dot_product_attention(q, k, v)


def _attention_by_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The same with a pair of oneDNN products per head, whose attention weights stay in the processor's cache."""
    batch, heads, tokens, width = q.shape
    out = q.new_empty(batch, tokens, heads, width)
    for clip in range(batch):
        for head in range(heads):
            weights = product(q[clip, head] * width**-0.5, k[clip, head].contiguous())
            torch.softmax(weights, dim=-1, out=weights)
            out[clip, :, head] = product(weights, v[clip, head].contiguous().t())
    return out.transpose(1, 2)


class Attention(transformer.Attention):
    """:class:`adatosk.transformer.Attention` through :func:`linear` and :func:`attention`."""

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return split_heads(linear(x, self.qkv.weight, self.qkv_bias()), self.heads)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(join_heads(attention(*self.queries_keys_values(x))))


class PatchEmbed(transformer.PatchEmbed):
    """:class:`adatosk.transformer.PatchEmbed` through :func:`linear`."""

    def forward(self, patches: Tensor) -> Tensor:
        return linear(patches, self.proj.weight.flatten(1), self.proj.bias)


M = TypeVar("M", bound=nn.Module)
_THROUGH_ONEDNN: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: Linear,
    transformer.Attention: Attention,
    transformer.PatchEmbed: PatchEmbed,
}


def through_onednn(model: M) -> M:
    """Make a model's matrix products, ours or a library's, run through oneDNN; returns the model, modified in place.

    Parameters keep their names; on a GPU, compiled or exported, the model computes as before.
    """
    for module in model.modules():
        module.__class__ = _THROUGH_ONEDNN.get(type(module), type(module))
    return model


class _FusedMlp(Mlp):
    """Applies the GELU while the first product's result is still in the cache."""

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(product(x.contiguous(), self.fc1.weight, self.fc1.bias, "gelu"))


def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN packs weights of this type here: bfloat16 requires AVX-512 or newer."""
    if not (torch.backends.mkldnn.enabled and torch.backends.mkldnn.is_available()):
        return False
    return dtype != torch.bfloat16 or torch.ops.mkldnn._is_mkldnn_bf16_supported()


@torch.no_grad()
def for_inference(model: M, dtype: torch.dtype = torch.float32) -> M:
    """Prepare a model for the fastest inference without compilation; returns it, modified in place.

    It is switched to evaluation mode and its weights are converted once, whereas autocast would convert them in each
    pass. On a CPU they are also packed in oneDNN's layout, and our MLPs fuse the GELU into their first product.
    Afterwards the model runs only under ``torch.no_grad()`` or ``inference_mode()``; it cannot be trained, saved,
    moved, compiled or exported.

    Args:
        dtype: float32 or bfloat16; inputs must have it as well.
    """
    model = through_onednn(model.eval().to(dtype))
    if not _packs(dtype):
        return model
    linears = [m for m in model.modules() if type(m) is Linear and m.weight.device.type == "cpu"]
    for module in linears:
        module.weight = nn.Parameter(torch.ops.mkldnn._reorder_linear_weight(module.weight), requires_grad=False)
    for module in model.modules():
        if type(module) is Mlp and module.fc1 in linears:
            module.__class__ = _FusedMlp
    return model
