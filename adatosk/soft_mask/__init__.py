"""The adaptive temporal soft mask, the paper's contribution (section 3.2, Eq. 4 to 12).

Each equation is a pure function of tokens ``(B, n_t, n_s, D)``; :class:`TemporalSoftMask` holds the two learned
parts, the gate's MLP θ (Eq. 6) and the projection f (Eq. 9). Where tokens have been excluded, ``kept`` (bool ``(B,
n_t, n_s)``) marks those that remain; an excluded token is ignored everywhere and has weight 0.
"""

from adatosk.soft_mask.agnostic import (
    DISTANCES,
    ChannelGate,
    active_frames,
    class_agnostic_mask,
    frame_differences,
    frame_distance,
    frame_means,
)
from adatosk.soft_mask.mask import SoftMask, TemporalSoftMask
from adatosk.soft_mask.semantic import (
    SCORES,
    accumulate_scores,
    class_semantic_mask,
    semantic_score,
    semantic_scores,
)
