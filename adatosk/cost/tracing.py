"""Run a model on shapes only, without weights, and count its multiply-accumulates with fvcore."""

import math
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from adatosk.config import ModelConfig
from adatosk.model import AdaTosk

Call = Callable[..., Tensor | tuple[Tensor, ...]]


def weightless(config: ModelConfig) -> AdaTosk:
    """A model in eval mode without weights: on the meta device, which has shapes and computes nothing."""
    with torch.device("meta"):
        return AdaTosk(config).eval()


def forward_pass(config: ModelConfig, visible: int | None) -> tuple[AdaTosk, Call, tuple[Tensor, ...]]:
    """A model without weights, the call that is counted, and its inputs after the model: batch 1.

    Args:
        visible: n_s, visible patches of a frame in classification; ``None`` for both branches, with the decoder.
    """
    twin = weightless(config)
    with torch.device("meta"):
        if visible is None:
            return twin, _both_branches, (torch.zeros(1, 3, config.frames, config.image_size, config.image_size),)
        patches = torch.zeros(1, config.steps, config.patches, 3 * config.tubelet * config.patch_size**2)
        return twin, AdaTosk.classify_visible, (patches, torch.arange(visible)[None])


def _both_branches(model: AdaTosk, video: Tensor) -> tuple[Tensor, Tensor]:
    """Logits and reconstruction under a fixed hard mask; torch's global random stream is not advanced."""
    output = model(video, generator=torch.Generator().manual_seed(0))
    return output.logits, output.reconstruction


def fvcore_count(model: nn.Module, call: Call, inputs: tuple[Tensor, ...]) -> tuple[dict[str, int], dict[str, int]]:
    """Count the products in ``call(model, *inputs)``.

    Returns:
        multiply-accumulates of each module by name, the whole model being ``"model"``; and the operators that are not
        counted, with their number of calls.
    """
    with warnings.catch_warnings():  # fvcore calls torch.jit.script when it is imported
        warnings.simplefilter("ignore", FutureWarning)
        from fvcore.nn import FlopCountAnalysis, jit_handles
    handlers = {
        "aten::linear": jit_handles.linear_flop_jit,
        "aten::addmm": jit_handles.addmm_flop_jit,
        "aten::mm": jit_handles.matmul_flop_jit,
        "aten::bmm": jit_handles.bmm_flop_jit,
        "aten::matmul": jit_handles.matmul_flop_jit,
        "aten::einsum": _einsum_macs,
        "aten::scaled_dot_product_attention": _attention_macs,
    }
    analysis = FlopCountAnalysis(_Traced(model, call), inputs).clear_op_handles().set_op_handle(**handlers)
    # The uncounted operators are returned, so fvcore need not print them.
    analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
    with torch.no_grad():
        by_module = {name.removeprefix("model."): int(count) for name, count in analysis.by_module().items()}
    # The root also includes operations in methods of the model outside any module's forward.
    return by_module | {"model": by_module.pop("")}, dict(analysis.unsupported_ops())


def _attention_macs(inputs: list, outputs: list) -> int:
    """2·B·h·N·M·d for queries ``(B, h, N, d)`` and keys ``(B, h, M, d)``: q·k, then weights times values."""
    queries, keys = (value.type().sizes() for value in inputs[:2])
    return 2 * math.prod(queries) * keys[-2]


def _einsum_macs(inputs: list, outputs: list) -> int:
    """Product of the sizes of all indices of two operands; fvcore parses it from a text rounded to 4 digits."""
    terms = inputs[0].toIValue().replace(" ", "").split("->")[0].split(",")
    shapes = [value.type().sizes() for value in inputs[1].node().inputs()]
    pairs = zip("".join(terms), (size for shape in shapes for size in shape), strict=True)
    return math.prod(dict(pairs).values())


class _Traced(nn.Module):
    """Wraps the call, because the tracer requires a module."""

    def __init__(self, model: nn.Module, call: Call):
        super().__init__()
        self.model, self.call = model, call

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        return self.call(self.model, *inputs)
