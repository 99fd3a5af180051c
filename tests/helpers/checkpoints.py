"""VideoMAE checkpoints in the size of ``adatosk_tiny``, as transformers and as the authors' code save them."""

import argparse

import torch
from transformers import VideoMAEConfig, VideoMAEForPreTraining

from adatosk.model import create_model


def tiny(**overrides):
    torch.manual_seed(1)
    return create_model("adatosk_tiny", **{"mask_ratio": 0.0, "soft_mask": None, **overrides}).eval()


def reference(kind=VideoMAEForPreTraining, **changes):
    """One of transformers' models in the size of ``adatosk_tiny``; no bias is zero, which would hide a wrong place."""
    config = tiny().config
    sizes = {
        "image_size": config.image_size,
        "patch_size": config.patch_size,
        "num_frames": config.frames,
        "tubelet_size": config.tubelet,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": 4 * config.width,
        "decoder_hidden_size": 24,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 1,
        "decoder_intermediate_size": 48,
        "use_mean_pooling": False,
    }
    torch.manual_seed(0)
    model = kind(VideoMAEConfig(**{**sizes, **changes})).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def authors_names(model, prefix="encoder."):
    """The encoder of a model of transformers as the authors' code would save it, and what stands beside it there."""
    encoder, width = getattr(model, "videomae", model), model.config.hidden_size
    state = {f"{prefix}patch_embed.proj.{k}": v for k, v in parts(encoder.embeddings.patch_embeddings.projection)}
    for number, layer in enumerate(encoder.encoder.layer):
        block, attention = f"{prefix}blocks.{number}", layer.attention.attention
        projections = (attention.query, attention.key, attention.value)
        state[f"{block}.attn.qkv.weight"] = torch.cat([each.weight.data for each in projections])
        state[f"{block}.attn.q_bias"] = attention.query.bias.data
        state[f"{block}.attn.v_bias"] = attention.value.bias.data
        layers = {
            "attn.proj": layer.attention.output.dense,
            "mlp.fc1": layer.intermediate.dense,
            "mlp.fc2": layer.output.dense,
            "norm1": layer.layernorm_before,
            "norm2": layer.layernorm_after,
        }
        state |= {f"{block}.{name}.{k}": v for name, each in layers.items() for k, v in parts(each)}
    if encoder.layernorm is not None:
        state |= {f"{prefix}norm.{k}": v for k, v in parts(encoder.layernorm)}
    beside = ("decoder.norm.weight", "encoder_to_decoder.weight", "mask_token")
    beside = beside if prefix else ("fc_norm.weight", "fc_norm.bias", "head.weight", "head.bias")
    return state | dict.fromkeys(beside, torch.full((width,), 7.0))


def parts(module):
    return [(name, value.data) for name, value in module.named_parameters()]


def save_pre_trained(path, state, **options):
    """As the authors' training does: weights, optimiser, epoch, and all options of the command line."""
    args = argparse.Namespace(model="pretrain_videomae_base_patch16_224", mask_ratio=0.9, window_size=(8, 14, 14))
    torch.save({"model": state, "optimizer": {"state": {}}, "epoch": 799, "args": args}, path, **options)
    return path
