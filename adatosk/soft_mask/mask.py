"""The soft mask of Eq. 12, with the learned parts of both masks."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from adatosk.config import SoftMaskConfig
from adatosk.soft_mask.agnostic import ChannelGate, active_frames, agnostic_and_active, all_kept, frame_differences
from adatosk.soft_mask.baselines import AttentionPool, active_only, exclude_by, pixel_differences, random_ranks
from adatosk.soft_mask.semantic import accumulate_scores, class_semantic_mask


@dataclass(frozen=True)
class SoftMask:
    """The soft mask of a batch, with its parts.

    Attributes:
        weights: S (Eq. 12), ``(B, n_t, n_s, D)``, or D = 1 without the class-agnostic part; 0 on excluded tokens.
        agnostic: S^agnostic (Eq. 7), ``(B, n_t, n_s, D)``, mean 1 over the softmax's axis; ``None`` if off.
        semantic: S^semantic (Eq. 11), ``(B, n_t, n_s)`` in [0, 1], or of mean 1 over the kept tokens; ``None`` if off.
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
            agnostic, active = agnostic_and_active(
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
