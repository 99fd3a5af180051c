"""The class-semantic soft mask: what matters to the class and has not been there before (Eq. 8 to 11).

Tokens are ``(B, n_t, n_s, D)``; ``kept`` (bool ``(B, n_t, n_s)``) marks those that have not been excluded.
"""

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from adatosk.config import MIN_TEMPERATURE, SEMANTIC_SCORES, Scaling, check_exclusion
from adatosk.soft_mask.baselines import mean_one
from adatosk.soft_mask.registry import register

SemanticScore = Callable[[Tensor, Any], Tensor]  # M is None where it is not computed

SCORES: dict[str, SemanticScore] = {
    "A+M": lambda tokens, scores: semantic_scores(tokens) * (1 - scores),
    "M": lambda tokens, scores: torch.ones_like(tokens[..., 0]) * (1 - scores),
    "A": lambda tokens, _: semantic_scores(tokens),
}


def semantic_score(name: str, takes_m: bool) -> Callable[[SemanticScore], SemanticScore]:
    """Decorator that registers a semantic score (Eq. 11 before scaling), which ``soft_mask.semantic`` may then name.

    The function maps tokens ``(B, n_t, n_s, D)`` and M ``(B, n_t, n_s)`` to ``(B, n_t, n_s)``.

    Args:
        takes_m: whether it uses M; otherwise M is ``None``, and no token can be excluded.
    """
    return register(SCORES, lambda key: SEMANTIC_SCORES.update({key: takes_m}), name)


def accumulate_scores(
    tokens: Tensor,
    project: Callable[[Tensor], Tensor],
    excluded_per_step: int,
    temperature: float,
    kept: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Pass redundancy from frame to frame as a Markov chain and exclude the most redundant tokens (Eq. 8, 9).

    M_1 is uniform and so ranks nothing: the first e tokens to be excluded are those to which M_1 passes the most. At
    each later step, the e kept tokens with the highest M are excluded for the rest of the clip; M' is M over the
    remaining ones, renormalised to sum to 1; M_{t+1} = P M', where P[i, j] is the softmax over the tokens i of frame
    t+1 of cos(f(x_{t+1, i}), f(x_{t, j})) / temperature.

    Args:
        tokens: ``(B, n_t, n_s, D)``.
        project: f, from D channels to any number.
        excluded_per_step: e, tokens excluded per tubelet step; e·n_t < n_s.
        temperature: τ, at least 0.025.
        kept: bool ``(B, n_t, n_s)``, if what is excluded is known already, and not by M.

    Returns:
        scores M ``(B, n_t, n_s)``, which sum to 1 over each frame's kept tokens and are 0 on excluded ones; and kept,
        bool of the same shape, with n_s - e·j True at step j = 0 … n_t - 1.
    """
    check_exclusion(excluded_per_step, tokens.shape[1], tokens.shape[2])
    if temperature < MIN_TEMPERATURE:
        raise ValueError(f"temperature={temperature} overflows float32: at least {MIN_TEMPERATURE}")
    projected = project(tokens)
    # In half precision, the chain's sums would drift away from 1.
    features = F.normalize(projected.to(torch.promote_types(projected.dtype, torch.float32)), dim=-1)
    device = tokens.device.type
    # Tensors without data know no autocast. torch 2.11's compiler cannot trace the question is_autocast_available.
    with nullcontext() if device == "meta" else torch.autocast(device, enabled=False):
        return _markov_chain(features, excluded_per_step, temperature, kept)


def _markov_chain(
    features: Tensor, excluded_per_step: int, temperature: float, known: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The recurrence of :func:`accumulate_scores` on unit features ``(B, n_t, n_s, F)``."""
    batch, steps, count, _ = features.shape
    # All affinities in one product, so that the chain itself takes only small ones. [b, t, i, j]: token i of frame t+1,
    # token j of frame t.
    affinity = ((features[:, 1:] @ features[:, :-1].transpose(-1, -2) - 1) / temperature).exp()
    keep = torch.ones(batch, count, dtype=torch.bool, device=features.device)
    score = torch.full((batch, count), 1 / count, dtype=features.dtype, device=features.device)
    scores, kept = [score], [keep]
    for step in range(steps - 1):
        if known is not None:
            keep = known[:, step + 1]
        elif excluded_per_step:
            rank_by = score if step else _transfer(affinity[:, 0], score, keep)
            # A stable sort, so that ties are excluded in the same order on every device.
            order = rank_by.detach().masked_fill(~keep, -1).argsort(dim=1, descending=True, stable=True)
            keep = keep.scatter(1, order[:, :excluded_per_step], 0)
        score = _transfer(affinity[:, step], score, keep)
        scores.append(score)
        kept.append(keep)
    return torch.stack(scores, dim=1), torch.stack(kept, dim=1)


def _transfer(affinity: Tensor, score: Tensor, keep: Tensor) -> Tensor:
    """P M' over the kept tokens: maps M ``(B, n_s)`` of frame t to frame t + 1, given affinities ``(B, n_s, n_s)``."""
    stays = keep.to(score.dtype)
    passed = score * stays
    passed = passed / passed.sum(dim=1, keepdim=True)
    # Column j of P sums to 1 over the tokens that frame t+1 still has; dividing M' by the column's sum saves forming P.
    column_sums = torch.einsum("bi,bij->bj", stays, affinity)
    return stays * torch.einsum("bij,bj->bi", affinity, passed / column_sums)


def semantic_scores(tokens: Tensor) -> Tensor:
    """Activation map A, the sum of absolute activations (Eq. 10): ``(B, n_t, n_s)``, non-negative.

    The paper also calls it the activated attention map.
    """
    return tokens.abs().sum(dim=-1)


def class_semantic_mask(
    tokens: Tensor, scores: Tensor | None, kept: Tensor, use: str = "A+M", scaling: Scaling = "min_max"
) -> Tensor:
    """S^semantic = A (1 - M), normalised over the kept tokens of each clip (Eq. 11).

    Args:
        tokens: ``(B, n_t, n_s, D)``.
        scores: M ``(B, n_t, n_s)``; may be ``None`` if ``use`` does not need it, like ``A``.
        kept: bool ``(B, n_t, n_s)``.
        use: both scores, one alone (Table 3), or one registered with :func:`semantic_score`.
        scaling: to [0, 1] by minimum and maximum over the clip (``min_max``, Eq. 11), by the same two without their
            gradient (``constant``) or by those of each frame (``frame``); or over the clip's mean (``mean``).

    Returns:
        ``(B, n_t, n_s)`` in [0, 1], or with mean 1 over the kept tokens for ``mean``; 0 on excluded tokens. If the
        values of all kept tokens are equal, they are 1.
    """
    if use not in SCORES:
        raise ValueError(f"unknown semantic scores '{use}': choose {', '.join(SCORES)}")
    if SEMANTIC_SCORES[use] and scores is None:
        raise ValueError(f"semantic scores '{use}' need the accumulative score M")
    value = SCORES[use](tokens, scores)
    return _scaled(value, kept, scaling).masked_fill(~kept, 0.0)


def _scaled(value: Tensor, kept: Tensor, scaling: Scaling) -> Tensor:
    """``value`` ``(B, n_t, n_s)`` normalised over its kept entries."""
    if scaling == "mean":
        return mean_one(value, kept)
    if scaling not in ("min_max", "constant", "frame"):
        raise ValueError(f"unknown scaling '{scaling}': choose min_max, constant, frame or mean")
    dims = (2,) if scaling == "frame" else (1, 2)
    bounds = value.detach() if scaling == "constant" else value
    low = bounds.masked_fill(~kept, torch.inf).amin(dim=dims, keepdim=True)
    high = bounds.masked_fill(~kept, -torch.inf).amax(dim=dims, keepdim=True)
    spread = high - low
    return torch.where(spread > 0, (value - low) / spread.clamp_min(torch.finfo(value.dtype).tiny), 1.0)
