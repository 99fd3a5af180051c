"""The class-agnostic soft mask: the moments at which the face changes (Eq. 4 to 7).

Tokens are ``(B, n_t, n_s, D)``; ``kept`` (bool ``(B, n_t, n_s)``) marks those that have not been excluded.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adatosk.config import FRAME_DISTANCES, SoftmaxAxis
from adatosk.soft_mask.registry import register

FrameDistance = Callable[[Tensor, Tensor], Tensor]

DISTANCES: dict[str, FrameDistance] = {
    "l1": lambda before, after: (after - before).abs().sum(dim=-1),
    "l2": lambda before, after: torch.linalg.vector_norm(after - before, dim=-1),
    "cosine": lambda before, after: 1 - F.cosine_similarity(before, after, dim=-1),
}
# Dimensions of (B, n_t, n_s, D) that the softmax of Eq. 7 runs over.
_AXES: dict[str, tuple[int, ...]] = {"clip": (1, 2), "token": (2,), "time": (1,), "channel": (3,)}


def frame_distance(name: str) -> Callable[[FrameDistance], FrameDistance]:
    """Decorator that registers a frame distance, which a configuration may then name as ``soft_mask.distance``.

    The function maps the means of the frames before and after, ``(B, n_t - 1, D)`` each, to non-negative
    ``(B, n_t - 1)``.
    """
    return register(DISTANCES, FRAME_DISTANCES.add, name)


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


def agnostic_and_active(
    tokens: Tensor,
    gate: Callable[[Tensor], Tensor],
    k: int,
    distance: str,
    axis: SoftmaxAxis,
    kept: Tensor | None,
    classify: Callable[[Tensor], Tensor] | None,
) -> tuple[Tensor, Tensor]:
    """:func:`class_agnostic_mask`, and the active frames, bool ``(B, n_t)``."""
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
    return agnostic_and_active(tokens, gate, k, distance, axis, kept, classify)[0]
