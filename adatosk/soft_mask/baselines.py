"""Simple alternatives to the soft mask that need no paper: what weights a token, and what excludes it.

They take the soft mask's place in the same model at the same cost, so that a table can say what Eq. 4 to 12 add. Tokens
are ``(B, n_t, n_s, D)``, ``kept`` is bool ``(B, n_t, n_s)``; weights are ``(B, n_t, n_s)``, non-negative, 0 on excluded
tokens, and have a mean of 1 over a clip's kept ones.
"""

import torch
from torch import Tensor, nn

# Of a multiplicative hash of integers (Knuth, The Art of Computer Programming, 6.4): the same ranks on every device.
_FACTOR, _PLACE, _RANGE = 2654435761, 40503, 2**31


def random_ranks(positions: Tensor) -> Tensor:
    """Ranks for an exclusion that looks at nothing: a hash of a clip's hard mask and of each visible position.

    The hard mask is drawn at random, so these are as well, without a generator of their own.

    Args:
        positions: int64 ``(B, n_s)``, the visible positions.

    Returns:
        float32 ``(B, n_s)`` in [0, 1).
    """
    clip = (positions * (positions + _PLACE) * _FACTOR % _RANGE).sum(dim=1, keepdim=True) % _RANGE
    mixed = (clip + (positions + 1) * _PLACE) * _FACTOR % _RANGE
    return ((mixed ^ (mixed >> 15)) * _FACTOR % _RANGE >> 7).float() / (_RANGE >> 7)


def exclude_by(ranks: Tensor, steps: int, excluded_per_step: int) -> Tensor:
    """Exclude the e positions of highest rank at each step after the first, for the rest of the clip, as Eq. 8 does.

    Args:
        ranks: ``(B, n_s)``.
        steps: n_t.
        excluded_per_step: e; e·n_t < n_s.

    Returns:
        kept.
    """
    place = ranks.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    gone = excluded_per_step * torch.arange(steps, device=ranks.device)
    return place[:, None, :] >= gone[None, :, None]


def mean_one(values: Tensor, kept: Tensor) -> Tensor:
    """Non-negative ``values`` over their mean over a clip's kept tokens; 1 each where all are 0."""
    values = values.masked_fill(~kept, 0.0)
    total = values.sum(dim=(1, 2), keepdim=True)
    scaled = values * kept.sum(dim=(1, 2), keepdim=True) / total.clamp_min(torch.finfo(values.dtype).tiny)
    return torch.where(total > 0, scaled, 1.0).masked_fill(~kept, 0.0)


def pixel_differences(pixels: Tensor, kept: Tensor) -> Tensor:
    """Weights by how much the pixels of a visible patch change from the step before; the first step's by the next.

    Args:
        pixels: visible tubelets ``(B, n_t, n_s, C·t·h·w)``.
    """
    change = (pixels[:, 1:] - pixels[:, :-1]).abs().mean(dim=-1)
    return mean_one(torch.cat([change[:, :1], change], dim=1), kept)


def active_only(active: Tensor, kept: Tensor) -> Tensor:
    """Weights that average over the active frames alone: equal there, 0 elsewhere; ``active`` is bool ``(B, n_t)``."""
    return mean_one(active.unsqueeze(-1).expand_as(kept).float(), kept)


class AttentionPool(nn.Module):
    """Weights by attention of one learned query, the usual way to pool tokens: softmax(q·x / √D) over kept tokens."""

    def __init__(self, width: int):
        super().__init__()
        self.query = nn.Parameter(torch.zeros(width))  # uniform at first

    def forward(self, tokens: Tensor, kept: Tensor) -> Tensor:
        """Weights ``(B, n_t, n_s)``."""
        logits = (tokens @ self.query.to(tokens.dtype).unsqueeze(-1)).squeeze(-1) / len(self.query) ** 0.5
        weights = logits.masked_fill(~kept, -torch.inf).flatten(1).softmax(dim=1).unflatten(1, kept.shape[1:])
        return weights * kept.sum(dim=(1, 2), keepdim=True)
