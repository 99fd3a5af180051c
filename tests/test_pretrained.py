import os
import pickle
from pathlib import Path

import pytest
import torch
from checkpoints import authors_names, reference, save_pre_trained, tiny
from commands import command
from safetensors.torch import load_file, save_file
from transformers import VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel

from adatosk.config import RunConfig
from adatosk.presets import PROFILES
from adatosk.pretrained import describe, load_encoder
from adatosk.tokens import patchify

HUGGING_FACE = (VideoMAEForPreTraining, VideoMAEForVideoClassification, VideoMAEModel)
NORM = ("norm.weight", "norm.bias")


@pytest.fixture
def checkpoint(tmp_path):
    return save_pre_trained(tmp_path / "videomae.pth", authors_names(reference()))


def outputs(model, of_transformers, norm=True):
    """The last hidden states of both on the same clips with all patches visible."""
    config = model.config
    video = torch.randn(2, 3, config.frames, config.image_size, config.image_size)
    positions = torch.arange(config.patches).expand(2, -1)
    encoder = getattr(of_transformers, "videomae", of_transformers)
    with torch.no_grad():
        tokens, *_ = model.encoder.encode(patchify(video, config.tubelet, config.patch_size), positions, None)
        found = (model.encoder.norm(tokens) if norm else tokens).flatten(1, 2)
        return found, encoder(video.transpose(1, 2)).last_hidden_state


def assert_same_outputs(model, of_transformers, norm=True):
    found, expected = outputs(model, of_transformers, norm)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("pooling", [False, True])
@pytest.mark.parametrize("kind", HUGGING_FACE)
def test_what_transformers_saved_gives_its_own_output(kind, pooling, tmp_path):
    saved = reference(kind, use_mean_pooling=pooling)
    saved.save_pretrained(tmp_path)
    model = tiny()
    report = load_encoder(model, tmp_path / "model.safetensors")
    assert report.layout == ("Hugging Face, bare model" if kind is VideoMAEModel else "Hugging Face")
    assert report.missing == (NORM if pooling else ())
    assert set(report.loaded) | set(report.missing) == set(model.encoder.state_dict())
    names = load_file(tmp_path / "model.safetensors")
    assert set(report.unexpected) == {
        name for name in names if kind is not VideoMAEModel and not name.startswith("videomae.")
    }
    assert report.share == pytest.approx(1, abs=0.01) and (report.share == 1) != pooling
    assert_same_outputs(model, saved, norm=not pooling)


@pytest.mark.parametrize("legacy", [False, True])
def test_the_authors_pre_trained_checkpoint_gives_the_same_output(legacy, tmp_path):
    saved = reference()
    path = tmp_path / "checkpoint.pth"
    save_pre_trained(path, authors_names(saved), _use_new_zipfile_serialization=not legacy)
    model = tiny()
    report = load_encoder(model, path, describe(path).sha256)
    assert (report.layout, report.missing, report.share) == ("VideoMAE, pre-trained", (), 1)
    assert report.unexpected == ("decoder.norm.weight", "encoder_to_decoder.weight", "mask_token")
    assert report.loaded == tuple(model.encoder.state_dict())
    assert_same_outputs(model, saved)
    lines = str(report).splitlines()
    assert lines[0].endswith("checkpoint.pth: VideoMAE, pre-trained")
    assert [line.split(maxsplit=1) for line in lines[1:]] == [
        ["loaded", f"{len(report.loaded)} tensors, 100.00 % of the encoder's parameters"],
        ["missing", "none"],
        ["unexpected", "decoder (1), encoder_to_decoder (1), mask_token (1) (left out)"],
    ]


@pytest.mark.parametrize("key", ["module", "model", None])
def test_the_norm_of_a_fine_tuned_checkpoints_mean_is_not_the_encoders(key, tmp_path):
    saved = reference(VideoMAEForVideoClassification, use_mean_pooling=True)
    state = authors_names(saved, prefix="")
    torch.save(state if key is None else {key: state}, tmp_path / "tuned.pth")
    model = tiny()
    report = load_encoder(model, tmp_path / "tuned.pth")
    assert (report.layout, report.missing) == ("VideoMAE, fine-tuned", NORM)
    assert report.unexpected == ("fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias")
    assert (model.encoder.norm.weight == 1).all() and (model.encoder.norm.bias == 0).all()
    assert "norm.weight, norm.bias (left as they were)" in str(report)
    assert_same_outputs(model, saved, norm=False)


@pytest.mark.parametrize("names", [("q_bias", "v_bias", "k_bias"), ("query.bias", "value.bias", "key.bias")])
def test_biases_are_read_under_either_name_and_a_key_bias_changes_nothing(names, tmp_path):
    saved = reference(VideoMAEModel)
    state = {}
    for name, value in saved.state_dict().items():
        block, separator, bias = name.partition(".attention.attention.")
        if separator and bias.endswith("bias"):
            name = f"{block}.attention.attention.{names[0] if bias[0] == 'q' else names[1]}"
            state[f"{block}.attention.attention.{names[2]}"] = torch.ones_like(value)
        state[name] = value.clone()
    save_file(state, tmp_path / "renamed.safetensors")
    model = tiny()
    report = load_encoder(model, tmp_path / "renamed.safetensors")
    assert len(report.unexpected) == 2 and "key biases (2)" in str(report)
    assert_same_outputs(model, saved)
    key = model.encoder.blocks[0].attn
    x = torch.randn(2, 5, key.qkv.in_features)
    q, k, _ = key.queries_keys_values(x)
    logits, shifted = (q @ each.transpose(-1, -2) for each in (k, k + torch.randn(k.shape[-1])))
    torch.testing.assert_close(logits.softmax(dim=-1), shifted.softmax(dim=-1))


def test_half_precision_and_a_saved_model_of_this_package_are_read(tmp_path):
    state = {name: value.half() for name, value in authors_names(reference()).items()}
    model = tiny()
    load_encoder(model, save_pre_trained(tmp_path / "half.pth", state))
    assert {value.dtype for value in model.encoder.state_dict().values()} == {torch.float32}
    first = model.encoder.blocks[0].mlp.fc1.weight
    assert torch.equal(first.half(), state["encoder.blocks.0.mlp.fc1.weight"])
    model.save_pretrained(tmp_path)
    other = tiny(soft_mask={}, mask_ratio=0.4)
    assert load_encoder(other, tmp_path / "model.safetensors").share == 1
    assert torch.equal(other.encoder.blocks[0].mlp.fc1.weight, first)


def refused(path, message, model=None, **options):
    """Loading raises ``message`` and leaves the model as it was."""
    model = tiny() if model is None else model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        load_encoder(model, path, **options)
    assert str(path) in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    return str(error.value)


def test_another_digest_is_refused_with_both_digests(checkpoint):
    found = describe(checkpoint)
    assert found.path == str(checkpoint)
    error = refused(checkpoint, "adatosk pretrained", sha256="0" * 64)
    assert found.sha256 in error and "0" * 64 in error
    assert load_encoder(tiny(), found.path, found.sha256).share == 1


class Malicious:
    """Calls a function of its choice when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_checkpoint_is_refused_and_not_run(legacy, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    victim, path = tmp_path / "made by the checkpoint", tmp_path / "evil.pth"
    content = {"model": authors_names(reference()), "args": Malicious(victim)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    refused(path, r"refers to \w+\.mkdir, .* not done")
    path.write_bytes(pickle.dumps(content))
    refused(path, "no checkpoint, or a damaged one")
    assert not victim.exists()


def test_other_types_are_named_and_namespace_stays_forbidden_elsewhere(tmp_path, checkpoint):
    torch.save({"model": authors_names(reference()), "args": Path("out")}, tmp_path / "typed.pth")
    refused(tmp_path / "typed.pth", r"refers to pathlib\.\w*PosixPath, which is neither a tensor nor a plain value")
    load_encoder(tiny(), checkpoint)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(checkpoint, weights_only=True)


@pytest.mark.parametrize("kind", ["pth", "legacy", "safetensors"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(kind, kept, tmp_path):
    state, path = authors_names(reference()), tmp_path / f"cut.{kind}"
    if kind == "safetensors":
        save_file({name: value.clone() for name, value in state.items()}, path)
    else:
        save_pre_trained(path, state, _use_new_zipfile_serialization=kind == "pth")
    data = path.read_bytes()
    path.write_bytes(data[: int(kept * len(data))])
    refused(path, "no checkpoint, or a damaged one: fetch it again")


def test_missing_files_folders_and_files_without_weights_are_named(tmp_path):
    refused(tmp_path / "nowhere.pth", "no such checkpoint")
    refused(tmp_path, r"a folder: name the checkpoint in it, such as model\.safetensors")
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        describe(tmp_path / "nowhere.pth")
    for content in ({"model": {"epoch": 3}}, {"epoch": 3}, [torch.ones(2)], torch.ones(2)):
        torch.save(content, tmp_path / "odd.pth")
        refused(tmp_path / "odd.pth", "holds no weights by name")
    save_file({"conv1.weight": torch.ones(2), "fc.bias": torch.ones(2)}, tmp_path / "resnet.safetensors")
    refused(tmp_path / "resnet.safetensors", r"no VideoMAE checkpoint by its names \(conv1.weight, fc.bias\)")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"depth": 3}, "it has 2 blocks, the model 3"),
        ({"width": 64}, r"embedding has the shape \(32, 3, 2, 8, 8\), the model's \(64, 3, 2, 8, 8\)"),
        ({"patch_size": 16}, r"embedding has the shape \(32, 3, 2, 8, 8\), the model's \(32, 3, 2, 16, 16\)"),
        ({"tubelet": 4}, r"embedding has the shape \(32, 3, 2, 8, 8\), the model's \(32, 3, 4, 8, 8\)"),
        ({"mlp_ratio": 2.0}, r"blocks.0.mlp.fc1.weight has the shape \(128, 32\), the model's \(64, 32\)"),
    ],
)
def test_a_model_of_other_sizes_is_refused_with_both_shapes(change, message, checkpoint):
    refused(checkpoint, message, tiny(**change))


def mae_dfer(state):
    """Names of MAE-DFER's LGBlock: three attentions a block, and a token for each region."""
    renamed = {name.replace(".attn.", ".first_attn."): value for name, value in state.items()}
    return renamed | {"encoder.lg_region_tokens": torch.ones(8, 32)}


def svfap(state):
    return state | {"encoder.temporal_downsamples.0.weight": torch.ones(32, 32, 2)}


def layer_scale(state):
    return state | {"encoder.blocks.0.gamma_1": torch.ones(32)}


def learned_positions(state):
    return state | {"encoder.pos_embed": torch.ones(1, 128, 32)}


def without(*endings):
    return lambda state: {name: value for name, value in state.items() if not name.endswith(endings)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (mae_dfer, "MAE-DFER's encoder, .*; only VideoMAE's fits here"),
        (svfap, "SVFAP's encoder, .*; only VideoMAE's fits here"),
        (layer_scale, r"0 parameters are missing, 1 have no place in the model's encoder \(blocks.0.gamma_1\)"),
        (learned_positions, r"1 have no place in the model's encoder \(pos_embed\)"),
        (without("blocks.1.attn.q_bias"), r"1 parameters are missing \(blocks.1.attn.q_bias\), 0 have no place"),
        (without("q_bias", "v_bias"), r"4 parameters are missing \(.*, …\)"),
    ],
)
def test_another_encoder_or_a_part_of_one_is_refused(change, message, tmp_path):
    refused(save_pre_trained(tmp_path / "other.pth", change(authors_names(reference()))), message)


def test_an_attention_of_hugging_face_without_its_keys_is_refused(tmp_path):
    state = {name: value.clone() for name, value in reference(VideoMAEModel).state_dict().items()}
    del state["encoder.layer.1.attention.attention.key.weight"]
    save_file(state, tmp_path / "part.safetensors")
    refused(tmp_path / "part.safetensors", r"1 parameters are missing \(blocks.1.attn.qkv.weight\), 2 have no place")


def test_the_command_prints_the_report_and_what_a_run_file_needs(checkpoint):
    done = command("pretrained", checkpoint, "--model", "adatosk_tiny")
    assert done.exit_code == 0
    *report, last = done.stdout.splitlines()
    assert "\n".join(report) == str(load_encoder(tiny(), checkpoint))
    run = PROFILES["smoke"].model_dump_json(exclude={"weights"})
    snippet = last.removeprefix("for a run file: ")
    assert RunConfig.model_validate_json(f"{run[:-1]}, {snippet}}}").weights == describe(checkpoint)
    done = command("pretrained", checkpoint, "--model", "adatosk_small")
    assert done.exit_code == 1 and done.stderr.startswith("error: ") and "patch embedding" in done.stderr
    assert command("pretrained", checkpoint.with_name("nowhere.pth")).exit_code == 1
    done = command("pretrained", checkpoint, "--model", "adatosk_huge")
    assert done.exit_code == 2 and "adatosk_small" in done.stderr


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "name", ["blocks.1.attn.qkv.weight", "blocks.0.attn.v_bias", "norm.bias", "patch_embed.proj.bias"]
)
def test_values_that_are_not_finite_are_refused_by_name(value, name, tmp_path):
    state = {key: tensor.clone() for key, tensor in authors_names(reference()).items()}
    state[f"encoder.{name}"].view(-1)[-1] = value
    path = save_pre_trained(tmp_path / "diverged.pth", state)
    model = tiny()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=rf"{path}: {name} holds values that are not finite") as error:
        load_encoder(model, path)
    assert "\n" not in str(error.value)
    assert all(torch.equal(before[key], tensor) for key, tensor in model.state_dict().items())


def test_values_too_large_for_the_model_are_refused_and_what_is_left_out_may_be_anything(tmp_path):
    state = {key: tensor.clone() for key, tensor in authors_names(reference()).items()}
    state["decoder.norm.weight"] = torch.full((4,), float("nan"))
    load_encoder(tiny(), save_pre_trained(tmp_path / "fine.pth", state))
    state["encoder.norm.weight"] = state["encoder.norm.weight"].double() * 1e300
    with pytest.raises(ValueError, match=r"norm\.weight holds values that are not finite"):
        load_encoder(tiny(), save_pre_trained(tmp_path / "large.pth", state))
