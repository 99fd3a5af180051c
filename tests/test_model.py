import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from transformers import VideoMAEConfig, VideoMAEModel

from adatosk.config import ModelConfig, TrainConfig
from adatosk.losses import total_loss
from adatosk.model import AdaTosk, create_model, with_mask_options
from adatosk.presets import MODELS
from adatosk.soft_mask import class_semantic_mask
from adatosk.tokens import patchify, positions_of, tube_mask


def tiny(**overrides):
    torch.manual_seed(0)
    return create_model("adatosk_tiny", **overrides).eval()


def clips(model, batch=2, seed=0):
    config = model.config
    shape = (batch, 3, config.frames, config.image_size, config.image_size)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_shapes_of_both_branches():
    model = tiny()
    config = model.config
    output = model(clips(model))
    hidden = config.patches - config.visible_patches
    assert output.logits.shape == (2, 7)
    assert output.reconstruction.shape == (2, config.steps, hidden, 3 * config.tubelet * config.patch_size**2)
    assert output.visible.shape == (2, config.patches)
    assert output.soft_mask.weights.shape == (2, config.steps, config.visible_patches, config.width)


def test_encoder_without_masks_equals_transformers_videomae():
    model = create_model("adatosk_tiny", mask_ratio=0.0, soft_mask=None, depth=3, heads=4).eval()
    config = model.config
    reference = VideoMAEModel(
        VideoMAEConfig(
            image_size=config.image_size,
            patch_size=config.patch_size,
            num_frames=config.frames,
            tubelet_size=config.tubelet,
            hidden_size=config.width,
            num_hidden_layers=config.depth,
            num_attention_heads=config.heads,
            intermediate_size=4 * config.width,
            use_mean_pooling=False,
        )
    ).eval()
    encoder = model.encoder
    for parameter in encoder.parameters():  # biases start at zero, which would hide a misplaced one
        torch.nn.init.normal_(parameter, std=0.1)
    pairs = {"embeddings.patch_embeddings.projection": encoder.patch_embed.proj, "layernorm": encoder.norm}
    state = {f"{name}.{kind}": getattr(part, kind) for name, part in pairs.items() for kind in ("weight", "bias")}
    for number, block in enumerate(encoder.blocks):
        prefix, attention = f"encoder.layer.{number}", block.attn
        names = zip(("query", "key", "value"), attention.qkv.weight.chunk(3), strict=True)
        state |= {f"{prefix}.attention.attention.{name}.weight": weight for name, weight in names}
        state |= {f"{prefix}.attention.attention.{b}": getattr(attention, b) for b in ("q_bias", "v_bias")}
        parts = {
            "attention.output.dense": attention.proj,
            "intermediate.dense": block.mlp.fc1,
            "output.dense": block.mlp.fc2,
            "layernorm_before": block.norm1,
            "layernorm_after": block.norm2,
        }
        state |= {f"{prefix}.{n}.{kind}": getattr(p, kind) for n, p in parts.items() for kind in ("weight", "bias")}
    loaded = load_reference(reference, state)
    video = clips(model)
    everything = torch.arange(config.patches).expand(2, -1)
    with torch.no_grad():
        found, _ = encoder(patchify(video, config.tubelet, config.patch_size), everything, None)
        expected = loaded(video.transpose(1, 2)).last_hidden_state
    torch.testing.assert_close(found.flatten(1, 2), expected, rtol=1e-4, atol=1e-4)


def load_reference(reference, state):
    """Fill transformers' model; its attention names the biases in one of two ways, depending on the version."""
    expected = reference.state_dict()
    renamed = {}
    for name, value in state.items():
        if name not in expected and name.endswith(("q_bias", "v_bias")):
            name = name.replace("q_bias", "query.bias").replace("v_bias", "value.bias")
        renamed[name] = value.detach()
    missing = {n for n in expected if n not in renamed and not n.endswith(("key.bias", "k_bias"))}
    assert not missing, missing
    zeros = {n: torch.zeros_like(v) for n, v in expected.items() if n.endswith(("key.bias", "k_bias"))}
    reference.load_state_dict({**zeros, **renamed}, strict=True)
    return reference


def attend_with_mask(attention, x, allowed):
    bias = torch.cat([attention.q_bias, torch.zeros_like(attention.q_bias), attention.v_bias])
    qkv = rearrange(
        F.linear(x, attention.qkv.weight, bias), "b n (three h d) -> three b h n d", three=3, h=attention.heads
    )
    mixed = F.scaled_dot_product_attention(*qkv, attn_mask=allowed[:, None, None, :])
    return attention.proj(rearrange(mixed, "b h n d -> b n (h d)"))


@pytest.mark.parametrize("score_block", [1, 2, 3])
def test_early_exit_equals_all_tokens_with_the_excluded_masked_from_attention(score_block):
    model = tiny(depth=3, soft_mask={"score_block": score_block})
    config = model.config
    video, visible = clips(model, 3), tube_mask(3, config.patches, config.mask_ratio)
    with torch.no_grad():
        positions = positions_of(visible, config.visible_patches)
        patches = patchify(video, config.tubelet, config.patch_size)
        x = model.encoder.embed(patches, positions).flatten(1, 2)
        for block in model.encoder.blocks[:score_block]:
            x = block(x)
        _, kept = model.soft_mask.score(x.unflatten(1, (config.steps, -1)))
        allowed = kept.flatten(1)
        for block in model.encoder.blocks[score_block:]:
            x = x + attend_with_mask(block.attn, block.norm1(x), allowed)
            x = x + block.mlp(block.norm2(x))
        expected = model.encoder.norm(x)
        found, (_, found_kept) = model.encoder(patches, positions, model.soft_mask)
    assert torch.equal(found_kept, kept)
    assert (~kept).any()
    torch.testing.assert_close(found.flatten(1, 2)[allowed], expected[allowed], rtol=1e-5, atol=1e-5)


def test_tokens_that_left_cannot_influence_the_logits():
    model = tiny(depth=3)
    config = model.config
    visible = tube_mask(2, config.patches, config.mask_ratio)
    with torch.no_grad():
        patches = patchify(clips(model), config.tubelet, config.patch_size)
        tokens, scored = model.encoder(patches, positions_of(visible, config.visible_patches), model.soft_mask)

        def classify(tokens):
            return model._classify_tokens(tokens, model.soft_mask(tokens, scored))

        logits, mask = classify(tokens), model.soft_mask(tokens, scored)
        left = ~mask.kept
        perturbed = tokens.clone()
        perturbed[left] += 1000.0
        moved = classify(perturbed)
        perturbed = tokens.clone()
        perturbed[mask.kept] += torch.randn_like(perturbed[mask.kept])
        changed = classify(perturbed)
    assert left.any()
    assert (mask.weights[left] == 0).all()
    assert torch.equal(moved, logits)
    assert not torch.allclose(changed, logits)


@pytest.mark.parametrize("source", ["raw", "scored"])
def test_activation_can_be_taken_inside_the_encoder(source):
    model = tiny(soft_mask={"activation": source})
    config = model.config
    patches = patchify(clips(model), config.tubelet, config.patch_size)
    positions = positions_of(tube_mask(2, config.patches, config.mask_ratio), config.visible_patches)
    with torch.no_grad():
        x = model.encoder.embed(patches, positions).flatten(1, 2)
        for block in model.encoder.blocks[: config.soft_mask.score_block]:
            x = block(x)
        raw, early, (scores, kept) = model.encoder.encode(patches, positions, model.soft_mask)
        tokens, mask = model.look(patches, positions)
    torch.testing.assert_close(early.flatten(1, 2), x)
    torch.testing.assert_close(tokens, model.encoder.norm(raw))
    inner, scaling = raw if source == "raw" else early, config.soft_mask.scaling
    torch.testing.assert_close(mask.semantic, class_semantic_mask(inner, scores, kept, scaling=scaling))
    assert not torch.allclose(mask.semantic, class_semantic_mask(tokens, scores, kept, scaling=scaling))
    with pytest.raises(ValueError, match="inside the encoder"):
        model.soft_mask(tokens)


def test_scored_tokens_need_a_block_that_is_scored():
    with pytest.raises(ValueError, match="score_block"):
        tiny(soft_mask={"activation": "scored", "score_block": None})


MASKS = [
    None,
    {"score_block": None},
    {"distance": "l2", "axis": "token", "gate": "literal"},
    {"distance": "cosine", "axis": "time"},
    {"distance": "classification", "axis": "channel"},
    {"semantic": "none", "excluded_per_step": 0},
    {"agnostic": False, "semantic": "M"},
    {"agnostic": False, "semantic": "A", "excluded_per_step": 0},
    {"scaling": "mean"},
    {"scaling": "constant", "activation": "shuffled"},
    {"activation": "scored"},
    {},
]


@pytest.mark.parametrize("soft_mask", MASKS, ids=str)
def test_gradients_reach_what_the_loss_trains_and_nothing_else(soft_mask):
    model = tiny(soft_mask=soft_mask).train()
    config, video, labels = model.config, clips(model, 4), torch.tensor([0, 1, 2, 3])
    losses = total_loss(model(video), video, labels, config, TrainConfig(cls_weight=1.0))
    losses.total.backward(retain_graph=True)
    untouched = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert untouched == []
    model.zero_grad()
    losses.classification.backward()
    decoder = ("decoder.", "encoder_to_decoder", "mask_token")
    reached = {n for n, p in model.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert not [n for n in reached if n.startswith(decoder)]
    assert {n for n, _ in model.named_parameters() if not n.startswith(decoder)} == reached


def test_classify_equals_forward_and_averages_views():
    model = tiny()
    config, video = model.config, clips(model)
    with torch.no_grad():
        masks = [tube_mask(2, config.patches, config.mask_ratio, torch.Generator().manual_seed(s)) for s in (0, 1)]
        torch.testing.assert_close(model.classify(video), model(video, masks[0]).logits)
        expected = torch.stack([model(video, mask).logits for mask in masks]).mean(dim=0)
        torch.testing.assert_close(model.classify_masks(video, masks), expected)
        assert torch.equal(model.classify(video, views=3), model.classify(video, views=3))
        assert model.classify(video, complementary=True).shape == (2, 7)
        assert not torch.equal(model.classify(video, views=1), model.classify(video, views=2))


def test_a_batch_gives_each_clip_the_logits_it_gets_alone():
    model = tiny()
    video, visible = clips(model, 3), tube_mask(3, model.config.patches, model.config.mask_ratio)
    with torch.no_grad():
        together = model(video, visible).logits
        alone = torch.cat([model(video[i : i + 1], visible[i : i + 1]).logits for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_saved_weights_come_back_with_their_configuration(tmp_path):
    model = tiny(classes=("calm", "glad"))
    model.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    loaded = AdaTosk.from_pretrained(tmp_path).eval()
    assert loaded.config == model.config
    video = clips(model)
    assert torch.equal(loaded.classify(video), model.classify(video))


@pytest.mark.parametrize("name", list(MODELS))
def test_every_named_model_can_be_made(name):
    with torch.device("meta"):
        assert AdaTosk(MODELS[name]).config == MODELS[name]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"image_size": 30}, "image_size 30 is not a multiple of patch_size 8"),
        ({"frames": 15}, "frames 15 is not a multiple of tubelet 2"),
        ({"heads": 5}, "width 32 is not a multiple of heads 5"),
        ({"mask_ratio": 0.99}, "leaves none of 16 patches"),
        ({"mask_ratio": 1.0}, "less than 1"),
        ({"soft_mask": {"excluded_per_step": 2}}, "at most excluded_per_step=1"),
        ({"soft_mask": {"top_k": 8}}, "top_k=8 exceeds the 7 frame differences"),
        ({"soft_mask": {"score_block": 3}}, "beyond the encoder's 2 blocks"),
        ({"soft_mask": {"distance": "l3"}}, "unknown frame distance 'l3': choose classification, cosine, l1, l2"),
        ({"soft_mask": {"axis": "frame"}}, "'clip', 'token', 'time' or 'channel'"),
        ({"soft_mask": {"temperature": 0.0}}, "greater than or equal to 0.025"),
        ({"soft_mask": {"semantic": "A"}}, "set excluded_per_step to 0"),
        ({"soft_mask": {"agnostic": False, "semantic": "none"}}, "masks nothing"),
        ({"classes": ("a", "a")}, "at least two different names"),
        ({"depht": 2}, "depht: ModelConfig has no such field: it has classes, "),
        ({"soft_mask": {"topk": 2}}, r"soft_mask\.topk: SoftMaskConfig has no such field: it has agnostic, "),
    ],
)
def test_impossible_models_raise_an_error_that_says_the_limit(overrides, message):
    with pytest.raises(ValueError, match=message):
        create_model("adatosk_tiny", **overrides)


def test_unknown_model_and_wrong_clips_are_refused():
    with pytest.raises(ValueError, match="unknown model 'adatosk_huge': choose adatosk_base"):
        create_model("adatosk_huge")
    model = tiny()
    with pytest.raises(ValueError, match=r"a clip must be \(B, 3, 16, 32, 32\), got \(2, 3, 16, 31, 32\)"):
        model.classify(torch.zeros(2, 3, 16, 31, 32))
    with pytest.raises(ValueError, match="views must be at least 1"):
        model.classify(clips(model), views=0)
    with pytest.raises(ValueError, match="at most excluded_per_step=0"):
        model(clips(model), torch.arange(16).expand(2, -1) < 8)


def test_the_papers_model_has_a_vit_b_encoder():
    with torch.device("meta"):
        model = AdaTosk(ModelConfig())
    blocks = sum(p.numel() for p in model.encoder.blocks.parameters())
    # 12 blocks of qkv, projection, MLP and norms at 768 wide, without a key bias.
    assert blocks == 12 * (3 * 768**2 + 2 * 768 + 768**2 + 768 + 8 * 768**2 + 5 * 768 + 4 * 768)


def test_a_model_in_bf16_classifies_and_nearly_agrees():
    model = tiny()
    video = clips(model)
    with torch.no_grad():
        full, half = model.classify(video), model.to(torch.bfloat16).classify(video.bfloat16())
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), full, rtol=0.1, atol=0.1)


class TestOtherMaskOptions:
    def test_the_weights_stay_and_the_options_count(self):
        model = tiny()
        video = clips(model, batch=1)
        visible = tube_mask(1, model.config.patches, 0.4, torch.Generator().manual_seed(0))
        same = with_mask_options(model, top_k=None, distance=None)
        assert torch.equal(same(video, visible).logits, model(video, visible).logits)
        other = with_mask_options(model, 0.25, top_k=5, excluded_per_step=0)
        assert other.config.visible_patches == 12
        seen = other(video, tube_mask(1, model.config.patches, 0.25, torch.Generator().manual_seed(0))).soft_mask
        assert int(seen.active.sum()) == 5 and seen.kept.all()

    @pytest.mark.parametrize(
        ("options", "said"),
        [({"top_k": 8}, "top_k=8 exceeds"), ({"gate_reduction": 8}, "gate_reduction: this needs other weights"),
         ({"colour": 1}, "colour")],
    )  # fmt: skip
    def test_what_these_weights_cannot_do_is_an_error(self, options, said):
        with pytest.raises(ValueError, match=said):
            with_mask_options(tiny(), **options)


@pytest.mark.parametrize("soft_mask", [{}, None, {"excluded_per_step": 0}], ids=str)
def test_checkpointed_activations_give_the_same_gradients(soft_mask):
    """Blocks run twice as often, before and after the tokens that are excluded, and only in a training step."""
    video, gradients, calls = torch.randn(2, 3, 16, 32, 32), [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        model = create_model("adatosk_tiny", soft_mask=soft_mask)
        model.encoder.checkpointing, count = checkpointing, []
        for block in model.encoder.blocks:
            block.register_forward_pre_hook(lambda *_, count=count: count.append(1))
        output = model(video, generator=torch.Generator().manual_seed(1))
        (output.logits.square().sum() + output.reconstruction.square().sum()).backward()
        gradients.append([p.grad for p in model.parameters()])
        calls.append(len(count))
        with torch.no_grad():
            model(video)
        assert len(count) == calls[-1] + 2
    assert calls == [2, 4]
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True) if a is not None)
