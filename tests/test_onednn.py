"""Products through oneDNN are the plain ones, and a model that did not opt in knows nothing of them."""

import copy

import naive
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from adatosk import create_model
from adatosk.onednn import FLOPS, LONG, Linear, attention, for_inference, linear, through_onednn, uses_onednn
from adatosk.transformer import Mlp


def products(shape, bias=True, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x, weight, offset = (
        torch.randn(size, generator=generator, dtype=torch.float64) for size in (shape, (5, shape[-1]), (5,))
    )
    parts = [x, weight] + ([offset] if bias else [])
    return [part.to(dtype).requires_grad_() for part in parts]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(7,), (3, 7), (2, 3, 7), (2, 3, 4, 7)])
def test_values_and_gradients_are_those_of_a_loop_in_float64(shape, bias):
    parts, exact = products(shape, bias), products(shape, bias, torch.float64)
    assert uses_onednn(parts[0])
    y = linear(*parts)
    rows = exact[0].reshape(-1, shape[-1])
    naive = torch.stack([torch.stack([(row * column).sum() for column in exact[1]]) for row in rows])
    naive = (naive + exact[2] if bias else naive).reshape(y.shape)
    torch.testing.assert_close(y.double(), naive, rtol=1e-5, atol=1e-5)
    y.square().sum().backward()
    naive.square().sum().backward()
    for part, other in zip(parts, exact, strict=True):
        torch.testing.assert_close(part.grad.double(), other.grad, rtol=1e-4, atol=1e-4)


def test_only_the_gradients_that_are_needed_are_computed():
    x, weight, bias = products((3, 7))
    linear(x.detach(), weight, bias).sum().backward()
    assert x.grad is None and weight.grad is not None and bias.grad is not None
    linear(x, weight.detach(), bias.detach()).sum().backward()
    assert x.grad is not None


def test_strided_inputs_are_as_good():
    x, weight, bias = products((4, 7))
    strided = x.detach().t().contiguous().t()
    torch.testing.assert_close(linear(strided, weight, bias), F.linear(x, weight, bias))


def test_where_onednn_does_not_apply_it_is_the_plain_layer():
    x, weight, bias = products((3, 7))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not uses_onednn(x)
        assert linear(x, weight, bias).dtype == torch.bfloat16
    assert not uses_onednn(x.double()) and not uses_onednn(x.to("meta"))
    assert linear(x[:0], weight, bias).shape == (0, 5)


def test_a_library_s_layers_are_exchanged_with_their_weights():
    model = nn.Sequential(nn.Linear(7, 6), nn.GELU(), nn.Linear(6, 2, bias=False))
    x = torch.randn(3, 7)
    before, names = model(x), list(model.state_dict())
    assert through_onednn(model) is model
    assert type(model[0]) is Linear and list(model.state_dict()) == names
    torch.testing.assert_close(model(x), before)


@pytest.mark.parametrize("change", [{}, {"soft_mask": None}, {"head_norm": "batch"}])
def test_a_model_for_inference_gives_the_same_logits(change):
    torch.manual_seed(0)
    model = create_model("adatosk_tiny", **change).train()
    video = torch.randn(3, 3, 16, 32, 32)
    with torch.no_grad():
        before, count = counted(copy.deepcopy(model).eval(), video)
        fast = for_inference(model)
        after, same = counted(fast, video)
    assert fast is model and not fast.training
    assert fast.encoder.blocks[0].attn.qkv.weight.is_mkldnn and fast.encoder.blocks[0].mlp.fc1.weight.is_mkldnn
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-5)
    assert same == count > 0


def counted(model, video):
    with FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
        logits = model.classify(video)
    return logits, counter.get_total_flops()


def test_in_half_precision_it_is_close():
    torch.manual_seed(0)
    model = create_model("adatosk_tiny", soft_mask=None).eval()
    video = torch.randn(3, 3, 16, 32, 32)
    with torch.no_grad():
        before = model.classify(video)
        after = for_inference(model, torch.bfloat16).classify(video.bfloat16())
    assert after.dtype == torch.bfloat16
    assert 0 < (after.float() - before).abs().max() < 0.03 * before.abs().max()


def test_packed_layers_take_their_gelu_along():
    torch.manual_seed(0)
    x, mlp = torch.randn(4, 8), Mlp(8, 16)
    with torch.no_grad():
        before = mlp(x)
        torch.testing.assert_close(for_inference(mlp)(x), before, rtol=1e-5, atol=1e-5)
    assert type(mlp) is not Mlp


def test_without_the_processors_help_half_precision_is_plain(monkeypatch):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: False)
    model = for_inference(create_model("adatosk_tiny", soft_mask=None), torch.bfloat16)
    assert not model.encoder.blocks[0].attn.qkv.weight.is_mkldnn
    with torch.no_grad():
        assert model.classify(torch.randn(1, 3, 16, 32, 32).bfloat16()).isfinite().all()


def test_a_model_runs_through_it_only_when_it_opts_in():
    model = create_model("adatosk_tiny")
    assert not any(type(module).__module__ == "adatosk.onednn" for module in model.modules())
    twin, video = through_onednn(copy.deepcopy(model)).eval(), torch.randn(2, 3, 16, 32, 32)
    kinds = {type(module).__name__ for module in twin.modules() if type(module).__module__ == "adatosk.onednn"}
    assert kinds == {"Attention", "Linear", "PatchEmbed"}
    assert twin.state_dict().keys() == model.state_dict().keys()
    torch.testing.assert_close(twin.classify(video), model.eval().classify(video), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tokens", [7, LONG])
def test_attention_is_the_naive_one_with_and_without_gradient(tokens):
    torch.manual_seed(0)
    # Parts of one product as the model makes them, not contiguous.
    qkv = rearrange(torch.randn(2, tokens, 3 * 2 * 8), "b n (three h d) -> three b h n d", three=3, h=2).unbind()
    learned = attention(*qkv)
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=FLOPS) as counter:
        ways = [learned, attention(*qkv)]
    by_onednn = any("mkldnn" in str(operator) for operator in counter.get_flop_counts().get("Global", {}))
    assert by_onednn == (tokens >= LONG)
    for clip, head in np.ndindex(2, 2):
        expected = naive.attention(*(part[clip, head].tolist() for part in qkv))
        for way in ways:
            np.testing.assert_allclose(way[clip, head].numpy(), expected, rtol=1e-5, atol=1e-5)
