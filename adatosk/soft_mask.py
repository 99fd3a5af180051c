"""The adaptive temporal soft mask, the paper's contribution (section 3.2, Eq. 4 to 12).

Each equation is a pure function of tokens ``(B, n_t, n_s, D)``; :class:`TemporalSoftMask` holds the two learned
parts, the gate's MLP θ (Eq. 6) and the projection f (Eq. 9). Where tokens have been excluded, ``kept`` (bool ``(B,
n_t, n_s)``) marks those that remain; an excluded token is ignored everywhere and has weight 0.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adatosk.baselines import AttentionPool, active_only, exclude_by, mean_one, pixel_differences, random_ranks
from adatosk.config import (
    FRAME_DISTANCES,
    MIN_TEMPERATURE,
    SEMANTIC_SCORES,
    Scaling,
    SoftMaskConfig,
    SoftmaxAxis,
    check_exclusion,
)

FrameDistance = Callable[[Tensor, Tensor], Tensor]
SemanticScore = Callable[[Tensor, Any], Tensor]  # M is None where it is not computed

DISTANCES: dict[str, FrameDistance] = {
    "l1": lambda before, after: (after - before).abs().sum(dim=-1),
    "l2": lambda before, after: torch.linalg.vector_norm(after - before, dim=-1),
    "cosine": lambda before, after: 1 - F.cosine_similarity(before, after, dim=-1),
}
SCORES: dict[str, SemanticScore] = {
    "A+M": lambda tokens, scores: semantic_scores(tokens) * (1 - scores),
    "M": lambda tokens, scores: torch.ones_like(tokens[..., 0]) * (1 - scores),
    "A": lambda tokens, _: semantic_scores(tokens),
}


def frame_distance(name: str) -> Callable[[FrameDistance], FrameDistance]:
    """Decorator that registers a frame distance, which a configuration may then name as ``soft_mask.distance``.

    The function maps the means of the frames before and after, ``(B, n_t - 1, D)`` each, to non-negative
    ``(B, n_t - 1)``.
    """
    return _register(DISTANCES, FRAME_DISTANCES.add, name)


def semantic_score(name: str, takes_m: bool) -> Callable[[SemanticScore], SemanticScore]:
    """Decorator that registers a semantic score (Eq. 11 before scaling), which ``soft_mask.semantic`` may then name.

    The function maps tokens ``(B, n_t, n_s, D)`` and M ``(B, n_t, n_s)`` to ``(B, n_t, n_s)``.

    Args:
        takes_m: whether it uses M; otherwise M is ``None``, and no token can be excluded.
    """
    return _register(SCORES, lambda key: SEMANTIC_SCORES.update({key: takes_m}), name)


def _register(functions: dict[str, Callable], allow: Callable[[str], object], name: str) -> Callable:
    def add(function: Callable) -> Callable:
        if name in functions or name in ("classification", "none"):
            raise ValueError(f"'{name}' is taken: register it under another name")
        functions[name] = function
        allow(name)
        return function

    return add


# Dimensions of (B, n_t, n_s, D) that the softmax of Eq. 7 runs over.
_AXES: dict[str, tuple[int, ...]] = {"clip": (1, 2), "token": (2,), "time": (1,), "channel": (3,)}


@dataclass(frozen=True)
class SoftMask:
    """The soft mask of a batch, with its parts.

    Attributes:
        weights: S (Eq. 12), ``(B, n_t, n_s, D)``, or D = 1 without the class-agnostic part; 0 on excluded tokens.
        agnostic: S^agnostic (Eq. 7), ``(B, n_t, n_s, D)``, mean 1 over the softmax's axis; ``None`` if off.
        semantic: S^semantic (Eq. 11), ``(B, n_t, n_s)`` in [0, 1]; ``None`` if off.
        scores: M (Eq. 8, 9), ``(B, n_t, n_s)``, summing to 1 over each frame; ``None`` if not computed.
        kept: bool ``(B, n_t, n_s)``, tokens not excluded.
        active: bool ``(B, n_t)``, the active frames (Eq. 5); ``None`` without the class-agnostic part.
    """

    weights: Tensor
    agnostic: Tensor | None
    semantic: Tensor | None
    scores: Tensor | None
    kept: Tensor
    active: Tensor | None

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """``semantic``, ``agnostic`` and ``active`` of a mask with both parts; `ValueError` otherwise."""
        if self.semantic is None or self.agnostic is None or self.active is None:
            raise ValueError("a soft mask of one part alone: take a model with both, agnostic and semantic")
        return self.semantic, self.agnostic, self.active


def all_kept(tokens: Tensor) -> Tensor:
    """bool ``(B, n_t, n_s)`` of True: nothing excluded."""
    return torch.ones(tokens.shape[:3], dtype=torch.bool, device=tokens.device)


def frame_means(tokens: Tensor, kept: Tensor | None = None) -> Tensor:
    """Mean token of each frame, X_t^vis of Eq. 4: ``(B, n_t, n_s, D)`` to ``(B, n_t, D)``."""
    if kept is None:
        return tokens.mean(dim=2)
    weight = kept.unsqueeze(-1).to(tokens.dtype)
    return (tokens * weight).sum(dim=2) / weight.sum(dim=2)


def frame_differences(
    tokens: Tensor,
    distance: str = "l1",
    kept: Tensor | None = None,
    classify: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """τ(t-1, t) between the means of neighbouring frames (Eq. 4; the distances of Table 4).

    Args:
        tokens: ``(B, n_t, n_s, D)``.
        distance: ``l1``, ``l2``, ``cosine`` (1 - cosine similarity), one registered with :func:`frame_distance`, or
            ``classification``: the total variation distance between the class probabilities of the two frames, each
            classified on its own.
        kept: tokens to include, all by default.
        classify: maps frame means ``(B, n_t, D)`` to logits; needed for ``classification``.

    Returns:
        ``(B, n_t - 1)``, non-negative.
    """
    return _between_means(frame_means(tokens, kept), distance, classify)


def _between_means(means: Tensor, distance: str, classify: Callable[[Tensor], Tensor] | None) -> Tensor:
    if distance == "classification":
        if classify is None:
            raise ValueError("distance 'classification' needs the classification head")
        probabilities = classify(means).softmax(dim=-1)
        return DISTANCES["l1"](probabilities[:, :-1], probabilities[:, 1:]) / 2
    if distance not in DISTANCES:
        raise ValueError(f"unknown distance '{distance}': choose {', '.join(DISTANCES)} or classification")
    return DISTANCES[distance](means[:, :-1], means[:, 1:])


def active_frames(differences: Tensor, k: int) -> Tensor:
    """Mark the second frame of each of the top-K pairs (Eq. 5): ``(B, n_t - 1)`` to bool ``(B, n_t)``, K True."""
    pairs = differences.shape[1]
    if not 1 <= k <= pairs:
        raise ValueError(f"top_k={k} must lie between 1 and the {pairs} frame differences")
    active = torch.zeros(differences.shape[0], pairs + 1, dtype=torch.bool, device=differences.device)
    return active.scatter(1, differences.topk(k, dim=1).indices + 1, 1)


class ChannelGate(nn.Module):
    """Channel-wise interaction unit (Eq. 6): softmax_D(θ(x)) ⊗ x + x on frame means ``(B, n_t, D)``.

    The softmax's weights average 1/D over the D channels, so as written the unit changes a frame by 0.1 % at D = 768;
    ``mean_one`` multiplies the weights by D.
    """

    def __init__(self, width: int, reduction: int = 16, mean_one: bool = True):
        super().__init__()
        self.fc1 = nn.Linear(width, width // reduction)
        self.fc2 = nn.Linear(width // reduction, width)
        self.scale = width if mean_one else 1

    def forward(self, frames: Tensor) -> Tensor:
        weights = self.fc2(F.relu(self.fc1(frames))).softmax(dim=-1) * self.scale
        return weights * frames + frames


def _softmax_mean_one(logits: Tensor, axis: SoftmaxAxis, kept: Tensor) -> Tensor:
    """Softmax over ``axis`` among the kept entries, scaled so that their mean along it is 1."""
    if axis not in _AXES:
        raise ValueError(f"unknown softmax axis '{axis}': choose {', '.join(_AXES)}")
    dims, mask = _AXES[axis], kept.unsqueeze(-1)
    logits = logits.masked_fill(~mask, -torch.inf) if axis != "channel" else logits
    # For a position excluded in every frame (axis 'time') only -inf is left: its weights are set to 0 below.
    highest = logits.amax(dim=dims, keepdim=True).detach().clamp_min(torch.finfo(logits.dtype).min)
    powers = (logits - highest).exp()
    total = powers.sum(dim=dims, keepdim=True)
    count = mask.expand_as(logits).sum(dim=dims, keepdim=True) if axis != "channel" else logits.shape[-1]
    return (powers / total.clamp_min(torch.finfo(logits.dtype).tiny) * count).masked_fill(~mask, 0.0)


def _agnostic(tokens, gate, k, distance, axis, kept, classify) -> tuple[Tensor, Tensor]:
    kept = all_kept(tokens) if kept is None else kept
    means = frame_means(tokens, kept)
    with torch.no_grad():  # a ranking has no gradient
        active = active_frames(_between_means(means, distance, classify), k)
    # Inactive frames contribute their plain mean, so that every frame gets a mask.
    enhanced = torch.where(active.unsqueeze(-1), gate(means), means)
    return _softmax_mean_one(tokens * enhanced.unsqueeze(2), axis, kept), active


def class_agnostic_mask(
    tokens: Tensor,
    gate: Callable[[Tensor], Tensor],
    k: int,
    distance: str = "l1",
    axis: SoftmaxAxis = "clip",
    kept: Tensor | None = None,
    classify: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """S^agnostic = softmax(X ⊙ X̃ᵀ), which emphasises the moments at which the face changes (Eq. 4 to 7).

    Args:
        tokens: ``(B, n_t, n_s, D)``.
        gate: Eq. 6 on frame means, ``(B, n_t, D)`` to the same; applied to the K active frames.
        k: number of active frames.
        distance: see :func:`frame_differences`.
        axis: what the softmax runs over: ``clip`` (all visible tokens, per channel), ``token`` (within a frame),
            ``time`` or ``channel`` (the last axis, a literal interpretation of Eq. 7).
        kept: tokens to include, all by default.
        classify: see :func:`frame_differences`.

    Returns:
        ``(B, n_t, n_s, D)``, non-negative, mean 1 along the axis, 0 on excluded tokens.
    """
    return _agnostic(tokens, gate, k, distance, axis, kept, classify)[0]


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
    """Activated attention map A, the sum of absolute activations (Eq. 10): ``(B, n_t, n_s)``, non-negative."""
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


def _shuffled(tokens: Tensor) -> Tensor:
    """``(B, n_t, n_s, D)``, the tokens of each clip in another order, the same for all clips and calls."""
    _, steps, count, _ = tokens.shape
    size = steps * count
    # Steps of about the golden ratio scatter neighbours in time and space; a stride without common divisor with the
    # size visits each token once.
    stride = next(stride for stride in range(max(round(0.618 * size), 1), 0, -1) if math.gcd(stride, size) == 1)
    order = (torch.arange(size, device=tokens.device) * stride + 1) % size  # at most one token stays where it is
    return tokens.flatten(1, 2)[:, order].unflatten(1, (steps, count))


class TemporalSoftMask(nn.Module):
    """The final mask S = S^agnostic ⊙ S^semantic (Eq. 12) with its learned parts.

    Args:
        width: D.
        config: which parts it has, and the interpretation of each ambiguity of the paper.
        classify: maps frame means ``(B, n_t, D)`` to logits, for ``distance="classification"``.
    """

    def __init__(self, width: int, config: SoftMaskConfig, classify: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.config = config
        self.gate = ChannelGate(width, config.gate_reduction, config.gate == "mean_one") if config.agnostic else None
        self.project = nn.Linear(width, width) if config.accumulates else None
        self.attention = AttentionPool(width) if config.baseline == "attention" else None
        # In a tuple, so that the head is not registered again as a submodule of the mask.
        self._classify = (classify,)

    def score(self, tokens: Tensor, positions: Tensor | None = None) -> tuple[Tensor | None, Tensor]:
        """M and the kept tokens (Eq. 8, 9); M is ``None`` when it is not used.

        Args:
            positions: int64 ``(B, n_s)``, the visible positions, for ``exclusion="random"``.
        """
        excluded, kept = self.config.excluded_per_step, None
        if self.config.exclusion == "random":
            if positions is None:
                raise ValueError("exclusion 'random' needs the visible positions")
            kept = exclude_by(random_ranks(positions), tokens.shape[1], excluded)
        if self.project is not None:
            return accumulate_scores(tokens, self.project, excluded, self.config.temperature, kept)
        return None, all_kept(tokens) if kept is None else kept

    def _baseline(self, tokens: Tensor, kept: Tensor, pixels: Tensor | None) -> Tensor:
        """The weights ``(B, n_t, n_s)`` of the configured baseline."""
        name, config = self.config.baseline, self.config
        if self.attention is not None:
            return self.attention(tokens, kept)
        if name == "pixels":
            if pixels is None:
                raise ValueError("baseline 'pixels' needs the visible pixels")
            return pixel_differences(pixels, kept)
        if name == "active":
            with torch.no_grad():
                differences = frame_differences(tokens, config.distance, kept, self._classify[0])
            return active_only(active_frames(differences, config.top_k), kept)
        return kept.to(tokens.dtype)

    def _activated(self, tokens: Tensor, inner: Tensor | None) -> Tensor:
        """The tokens whose absolute values A sums (Eq. 10)."""
        source = self.config.activation
        if source in ("raw", "scored"):
            if inner is None:
                raise ValueError(f"activation '{source}' needs tokens from inside the encoder")
            return inner
        if source == "shuffled":
            return _shuffled(tokens.detach())
        return tokens.detach() if source == "detached" else tokens

    def forward(
        self,
        tokens: Tensor,
        scored: tuple[Tensor | None, Tensor] | None = None,
        inner: Tensor | None = None,
        positions: Tensor | None = None,
        pixels: Tensor | None = None,
    ) -> SoftMask:
        """Mask the encoder's output ``(B, n_t, n_s, D)``.

        Args:
            scored: M and kept, if an earlier block computed them.
            inner: the same tokens before the encoder's last norm, for ``activation="raw"``, or after ``score_block``
                blocks, for ``"scored"``.
            positions: see :meth:`score`.
            pixels: visible tubelets ``(B, n_t, n_s, C·t·h·w)``, for ``baseline="pixels"``.

        Raises:
            ValueError: an option without the argument that it needs.
        """
        config = self.config
        activated = self._activated(tokens, inner)
        scores, kept = self.score(tokens, positions) if scored is None else scored
        weights, agnostic, active, semantic = kept.unsqueeze(-1).to(tokens.dtype), None, None, None
        if self.gate is not None:
            agnostic, active = _agnostic(
                tokens, self.gate, config.top_k, config.distance, config.axis, kept, self._classify[0]
            )
            weights = agnostic
        if config.semantic != "none":
            semantic = class_semantic_mask(activated, scores, kept, config.semantic, config.scaling)
            weights = weights * semantic.unsqueeze(-1)
        if config.baseline != "none":
            weights = self._baseline(tokens, kept, pixels).unsqueeze(-1)
        # M is always float32; the masked tokens keep the model's type.
        return SoftMask(weights.to(tokens.dtype), agnostic, semantic, scores, kept, active)
