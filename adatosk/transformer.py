"""The transformers of Figure 2: encoder, decoder and two-layer head.

Layout and parameter names are VideoMAE's, so that its checkpoints fit.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from adatosk.config import HeadNorm, ModelConfig
from adatosk.soft_mask import TemporalSoftMask
from adatosk.tokens import as_floats, gather_patches, positions_of, sinusoid_positions

_NORM_EPS = 1e-6


class PatchEmbed(nn.Module):
    """Linear embedding of tubelets; its weight has the shape of VideoMAE's 3-D convolution."""

    def __init__(self, tubelet: int, patch: int, width: int):
        super().__init__()
        self.proj = nn.Conv3d(3, width, kernel_size=(tubelet, patch, patch), stride=(tubelet, patch, patch))

    def forward(self, patches: Tensor) -> Tensor:
        # A matrix product instead of a convolution, because only the visible tubelets are embedded.
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class Attention(nn.Module):
    """Multi-head self-attention with query and value biases only, as VideoMAE stores them."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.q_bias = nn.Parameter(torch.zeros(width))
        self.v_bias = nn.Parameter(torch.zeros(width))
        self.proj = nn.Linear(width, width)

    def qkv_bias(self) -> Tensor:
        """Bias of queries, keys and values, ``(3·D,)``; that of the keys is 0, because the softmax cancels it."""
        return torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])

    def queries_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Project tokens ``(B, n, D)`` to queries, keys and values, each ``(B, h, n, D / h)``."""
        return split_heads(F.linear(x, self.qkv.weight, self.qkv_bias()), self.heads)

    def forward(self, x: Tensor) -> Tensor:
        context = F.scaled_dot_product_attention(*self.queries_keys_values(x))  # (B, h, n, D / h)
        return self.proj(join_heads(context))


def split_heads(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """``(B, n, 3·D)`` to queries, keys and values, each ``(B, h, n, D / h)``."""
    # Split where they are stored, so that the backward pass joins their gradients by one copy.
    q, k, v = rearrange(qkv, "b n (three h d) -> b n three h d", three=3, h=heads).unbind(2)
    return q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)


def join_heads(context: Tensor) -> Tensor:
    """``(B, h, n, D / h)`` to ``(B, n, D)``."""
    return rearrange(context, "b h n d -> b n (h d)")


class Mlp(nn.Module):
    """Linear, GELU, Linear on the last dimension."""

    def __init__(self, width: int, hidden: int, out: int | None = None):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width if out is None else out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int, mlp_ratio: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.attn = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=_NORM_EPS)
        self.mlp = Mlp(width, int(width * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """Φ_e: embeds and encodes the visible tubelets; redundant tokens are excluded after ``score_block`` blocks.

    Attributes:
        checkpointing: whether a training step computes each block again in its backward pass, to save memory.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config, self.checkpointing = config, False
        self.patch_embed = PatchEmbed(config.tubelet, config.patch_size, config.width)
        self.blocks = nn.ModuleList(Block(config.width, config.heads, config.mlp_ratio) for _ in range(config.depth))
        self.norm = nn.LayerNorm(config.width, eps=_NORM_EPS)
        positions = sinusoid_positions(config.steps * config.patches, config.width).unflatten(0, (config.steps, -1))
        self.register_buffer("positions", positions[None], persistent=False)  # (1, n_t, N_s, D)

    def embed(self, patches: Tensor, positions: Tensor) -> Tensor:
        """Tubelets ``(B, n_t, N_s, C·t·h·w)`` at visible ``positions`` ``(B, n)`` to tokens ``(B, n_t, n, D)``."""
        tokens = self.patch_embed(as_floats(gather_patches(patches, positions)))
        return tokens + gather_patches(self.positions.expand(len(patches), -1, -1, -1), positions)

    def forward(
        self, patches: Tensor, positions: Tensor, mask: TemporalSoftMask | None
    ) -> tuple[Tensor, tuple[Tensor | None, Tensor] | None]:
        """Encode; returns normed tokens ``(B, n_t, n, D)`` and, if scored inside the encoder, M and the kept tokens.

        Excluded tokens appear in the result as they were when they were excluded.
        """
        raw, _, scored = self.encode(patches, positions, mask)
        return self.norm(raw), scored

    def encode(
        self, patches: Tensor, positions: Tensor, mask: TemporalSoftMask | None
    ) -> tuple[Tensor, Tensor, tuple[Tensor | None, Tensor] | None]:
        """Like :meth:`forward`, without the last norm; between the two, the tokens that are scored."""
        tokens = self.embed(patches, positions)
        steps, score_block = tokens.shape[1], None if mask is None else mask.config.score_block
        x = tokens.flatten(1, 2)  # (B, n_t·n, D)
        x = self._through(self.blocks[:score_block], x)
        tokens = x.unflatten(1, (steps, -1))
        if mask is None or score_block is None:
            return tokens, tokens, None
        scored = mask.score(tokens, positions)
        x = self._finish(x, scored[1], mask.config.excluded_per_step, self.blocks[score_block:])
        return x.unflatten(1, (steps, -1)), tokens, scored

    def _finish(self, x: Tensor, kept: Tensor, excluded_per_step: int, blocks: nn.ModuleList) -> Tensor:
        """Run the remaining blocks on the kept tokens only, then put these back among the excluded ones."""
        if not excluded_per_step:
            return self._through(blocks, x)
        _, steps, count = kept.shape
        remaining = steps * count - excluded_per_step * steps * (steps - 1) // 2
        index = positions_of(kept.flatten(1), remaining).unsqueeze(-1).expand(-1, -1, x.shape[-1])
        y = self._through(blocks, x.gather(1, index))
        return x.scatter(1, index, y.to(x.dtype))

    def _through(self, blocks: nn.ModuleList, x: Tensor) -> Tensor:
        again = self.checkpointing and self.training and torch.is_grad_enabled()
        for block in blocks:
            x = checkpoint(block, x, use_reentrant=False) if again else block(x)
        return x


class Decoder(nn.Module):
    """Φ_d: reconstructs the pixels of the hidden patches from the encoded visible tokens (Eq. 3)."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        width = config.decoder_width
        blocks = (Block(width, config.decoder_heads, config.mlp_ratio) for _ in range(config.decoder_depth))
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS)
        self.head = nn.Linear(width, 3 * config.tubelet * config.patch_size**2)
        positions = sinusoid_positions(config.steps * config.patches, width).unflatten(0, (config.steps, -1))
        self.register_buffer("positions", positions[None], persistent=False)

    def forward(self, tokens: Tensor, mask_token: Tensor, visible: Tensor, hidden: Tensor) -> Tensor:
        """Tokens ``(B, n_t, n, D_dec)`` at positions ``visible`` to pixels at positions ``hidden`` ``(B, m)``."""
        batch, steps, _, _ = tokens.shape
        positions = self.positions.expand(batch, -1, -1, -1)
        seen = tokens + gather_patches(positions, visible)
        unseen = mask_token + gather_patches(positions, hidden)
        x = torch.cat([seen.flatten(1, 2), unseen.flatten(1, 2)], dim=1)
        for block in self.blocks:
            x = block(x)
        x = x[:, seen.shape[1] * seen.shape[2] :]
        return self.head(self.norm(x)).unflatten(1, (steps, -1))


class Head(nn.Module):
    """Two-layer classifier (Eq. 13) on features ``(..., D)``: norm, Linear-GELU-Linear, logits out."""

    def __init__(self, width: int, classes: int, norm: HeadNorm = "layer"):
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=_NORM_EPS) if norm == "layer" else nn.BatchNorm1d(width)
        self.mlp = Mlp(width, width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(self.norm(x.flatten(0, -2)).view(x.shape))

    def frozen(self, x: Tensor) -> Tensor:
        """The same in evaluation mode, so that running statistics are not updated."""
        was_training = self.training
        self.eval()
        logits = self(x)
        self.train(was_training)
        return logits
