"""Token merging (ToMe), a rival that needs no training: in a trained ViT, similar tokens are merged.

After the attention of each block, r tokens are merged with the token whose key is most similar to theirs, as a mean
weighted by the tokens' sizes, a size being the number of tokens merged so far. Attention and the final mean weight each
token by its size. The matching is the implementation by the method's authors (package ``tomesd``); the rest follows
Bolya et al., "Token Merging: Your ViT but Faster", arXiv 2210.09461, section 3.
"""

import copy
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from tomesd.merge import bipartite_soft_matching_random2d
from torch import Tensor

from adatosk.config import ModelConfig
from adatosk.cost.operations import hand_count
from adatosk.model import AdaTosk
from adatosk.transformer import Attention, Block, Encoder


def most_merged(config: ModelConfig) -> int:
    """The largest r: a block can merge half of its tokens, and the last block has n - (depth - 1)·r of n left."""
    return (config.steps * config.visible_patches + 1) // (config.depth + 1)


def with_merging(model: AdaTosk, r: int) -> AdaTosk:
    """A model sharing the weights that merges r tokens in each block when it classifies.

    Merging applies wherever ``classify`` or ``classify_masks`` is used, as in :func:`adatosk.evaluate.predict_split`,
    but not in training.

    Raises:
        ValueError: for a model with a soft mask, which excludes tokens itself, or an impossible r.
    """
    if model.soft_mask is not None:
        raise ValueError("merging is for a model without soft mask: set soft_mask to null")
    _check_merging(model.config, r)
    twin = copy.copy(model)  # shares all modules and weights
    if r:
        twin.classify_visible = partial(classify_merged, model, r)
    return twin


def _check_merging(config: ModelConfig, r: int) -> None:
    most = most_merged(config)
    if not 0 <= r <= most:
        raise ValueError(f"r must lie between 0 and {most} for {config.depth} blocks, got {r}")


def classify_merged(model: AdaTosk, r: int, patches: Tensor, positions: Tensor) -> Tensor:
    """Logits ``(B, classes)`` like those of :meth:`AdaTosk.classify_visible`, with r tokens merged in each block.

    Args:
        patches: tubelets ``(B, n_t, N_s, C·t·h·w)``.
        positions: of the visible patches, ``(B, n)``.
    """
    tokens, sizes = encode_merged(model.encoder, r, patches, positions)
    return model.head((tokens * sizes).sum(dim=1) / sizes.sum(dim=1))


def encode_merged(encoder: Encoder, r: int, patches: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Normed tokens ``(B, n_t·n - depth·r, D)`` and their sizes ``(B, n_t·n - depth·r, 1)``."""
    x = encoder.embed(patches, positions).flatten(1, 2)
    sizes = torch.ones_like(x[..., :1])
    for block in cast(list[Block], encoder.blocks):
        attended, keys = _attend(block.attn, block.norm1(x), sizes)
        x, sizes = merge_similar(x + attended, sizes, keys, r)
        x = x + block.mlp(block.norm2(x))
    return encoder.norm(x), sizes


def _attend(attention: Attention, x: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Attention that counts each token ``sizes`` times, and the mean of its keys over the heads ``(B, n, D / h)``."""
    q, k, v = attention.queries_keys_values(x)
    # softmax(q·k + log size): as if each token were present size times.
    x = F.scaled_dot_product_attention(q, k, v, attn_mask=rearrange(sizes.log(), "b n 1 -> b 1 1 n"))
    return attention.proj(rearrange(x, "b h n d -> b n (h d)")), k.mean(dim=1)


def merge_similar(x: Tensor, sizes: Tensor, keys: Tensor, r: int) -> tuple[Tensor, Tensor]:
    """Merge the r tokens at odd positions whose keys are most similar to one at an even position (cosine similarity).

    Args:
        x: ``(B, n, D)``.
        sizes: number of tokens merged into each, ``(B, n, 1)``.
        keys: ``(B, n, any)``.
        r: at most half of n.

    Returns:
        ``(B, n - r, D)`` and ``(B, n - r, 1)``; a merged token is the mean weighted by ``sizes``.
    """
    count = x.shape[1]
    # The tokens form a line, which is cut into pairs; the first of each pair stays.
    merge, _ = bipartite_soft_matching_random2d(keys, w=count, h=1, sx=2, sy=1, r=r, no_rand=True)
    merged_sizes = merge(sizes, mode="sum")
    return merge(x * sizes, mode="sum") / merged_sizes, merged_sizes


def merged_count(config: ModelConfig, r: int) -> dict[str, int]:
    """Multiply-accumulates of one clip with r tokens merged per block, by layer as in
    :func:`adatosk.cost.operations.hand_count`.

    Raises:
        ValueError: for an impossible r.
    """
    _check_merging(config, r)
    counts = dict(hand_count(config.change(soft_mask=None)))
    if r == 0:
        return counts
    tokens, width, hidden = config.steps * config.visible_patches, config.width, int(config.width * config.mlp_ratio)
    before = [tokens - r * block for block in range(config.depth)]
    return counts | {
        "blocks.qkv": sum(3 * n * width**2 for n in before),
        "blocks.attention": sum(2 * n**2 * width for n in before),
        "blocks.projection": sum(n * width**2 for n in before),
        "blocks.matching": sum((n - n // 2) * (n // 2) * (width // config.heads) for n in before),  # odd by even places
        "blocks.mlp": sum(2 * (n - r) * width * hidden for n in before),
    }
