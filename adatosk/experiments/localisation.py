"""How well frames or weights find a target; every score comes with its chance level and the best possible value."""

from typing import NamedTuple

import torch
from torch import Tensor

# A patch is on a region when at least this share of its pixels is.
ON_REGION = 0.5


class Score(NamedTuple):
    """A score of N clips, ``(N,)`` each in [0, 1]; NaN for clips without a target.

    Attributes:
        value: the score.
        chance: its expectation when frames, or the weights of the visible tokens, are drawn at random.
        best: the highest value that the clip allows.
    """

    value: Tensor
    chance: Tensor
    best: Tensor


def precision(active: Tensor, moving: Tensor) -> Score:
    """Share of the K active frames in which the target moves; by chance, its share of all pairs of frames.

    Args:
        active: bool ``(N, n_t)``, K True in each row, never the first step (Eq. 5).
        moving: bool of the same shape, never the first step.
    """
    hits, chosen, there = (flags.sum(1).double() for flags in (active & moving, active, moving))
    best = torch.minimum(chosen, there) / chosen
    return _defined(there > 0, hits / chosen, there / (moving.shape[1] - 1), best)


def recall(active: Tensor, moving: Tensor) -> Score:
    """Share of the steps in which the target moves that are active frames; arguments as for :func:`precision`."""
    hits, chosen, there = (flags.sum(1).double() for flags in (active & moving, active, moving))
    best = torch.minimum(chosen, there) / there
    return _defined(there > 0, hits / there, chosen / (moving.shape[1] - 1), best)


def mass(weights: Tensor, share: Tensor, counted: Tensor) -> Score:
    """Share of the weight that lies on a region; chance is the same weight on every token.

    Args:
        weights: of visible tokens, ``(N, n_t, n_s)``, non-negative; 0 on excluded ones.
        share: share of each token that lies on the region, same shape, in [0, 1].
        counted: steps that count, bool ``(N, n_t)``.
    """
    inside = counted[..., None].expand_as(share)
    weights, share = (values.double() * inside for values in (weights, share))
    total, tokens = weights.sum((1, 2)), inside.sum((1, 2))
    there = share.sum((1, 2))
    found = (weights * share).sum((1, 2))
    return _defined((there > 0) & (total > 0), found / total, there / tokens, share.amax((1, 2)))


def pointing(weights: Tensor, share: Tensor, counted: Tensor) -> Score:
    """The pointing game: whether the token of the highest weight lies on the region (Zhang et al., 1608.00507).

    If several tokens tie for the highest weight, the score is the share of them that lie on the region. Chance is that
    share among all tokens; arguments as for :func:`mass`.
    """
    inside = counted[..., None].expand_as(share)
    weights = weights.masked_fill(~inside, -torch.inf)
    highest = (weights == weights.amax((1, 2), keepdim=True)) & inside
    hits = (share >= ON_REGION) & inside
    hit, tied, on_region, tokens = (flags.sum((1, 2)).double() for flags in (highest & hits, highest, hits, inside))
    return _defined(on_region > 0, hit / tied, on_region / tokens, torch.ones_like(hit))


def _defined(where: Tensor, *values: Tensor) -> Score:
    return Score(*(value.where(where, torch.nan) for value in values))
