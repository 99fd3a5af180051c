"""The configuration of the temporal soft mask, and the names that it may use."""

from collections.abc import Collection
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from adatosk.config.frozen import Frozen

# What a configuration may name: frame distances (Eq. 4, Table 4), and semantic scores (Eq. 11, Table 3), with whether
# each uses the accumulated score M. adatosk.soft_mask implements them, and adds those that users register there.
FRAME_DISTANCES = {"l1", "l2", "cosine", "classification"}
SEMANTIC_SCORES = {"A+M": True, "M": True, "A": False, "none": False}


def _named(kind: str, known: Collection[str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError(f"unknown {kind} '{name}': choose {', '.join(sorted(known))}")
        return name

    return AfterValidator(check)


Distance = Annotated[str, _named("frame distance", FRAME_DISTANCES)]
Semantic = Annotated[str, _named("semantic score", SEMANTIC_SCORES)]
SoftmaxAxis = Literal["clip", "token", "time", "channel"]
Activation = Literal["normed", "raw", "scored", "detached", "shuffled"]
Scaling = Literal["min_max", "constant", "frame", "mean"]
Baseline = Literal["none", "uniform", "pixels", "attention", "active"]

# exp(2 / temperature), the range of a transition's affinities, has to stay within float32.
MIN_TEMPERATURE = 0.025


class SoftMaskConfig(Frozen):
    """The adaptive temporal soft mask (section 3.2); each field is one ambiguity of the paper or one row of Tables 2
    to 4.

    Attributes:
        agnostic: use the class-agnostic mask S^agnostic (Eq. 4 to 7).
        semantic: scores in the class-semantic mask (Eq. 11, Table 3): both, M alone, A alone, no such mask, or one
            registered with :func:`adatosk.soft_mask.semantic_score`.
        top_k: active frames K, of the n_t - 1 frame differences (Eq. 5).
        distance: frame distance (Eq. 4, Table 4), or one registered with :func:`adatosk.soft_mask.frame_distance`.
        gate: Eq. 6 as written (``literal``), or its weights scaled by D so that their mean is 1.
        gate_reduction: μ, the reduction ratio of the gate's MLP (Eq. 6).
        axis: what the softmax of Eq. 7 runs over: all visible tokens of the clip, the tokens of a frame, the frames, or
            the channels.
        excluded_per_step: e = t·r tokens excluded per tubelet step (the paper's r = 2 per frame is e = 4).
        score_block: number of encoder blocks before M is computed and tokens are excluded; ``None`` scores the
            encoder's output.
        temperature: τ of the transition's softmax (Eq. 9), on L2-normalised features.
        activation: tokens whose absolute values A sums (Eq. 10): the encoder's output after its last norm (``normed``)
            or before it (``raw``), or those that M is computed from, after ``score_block`` blocks (``scored``). The
            last norm gives all tokens about the same magnitude. Two controls use the output without passing a gradient:
            each token's own (``detached``), or that of another token of the clip (``shuffled``), which keeps the
            weights and takes away what they mean.
        scaling: how Eq. 11 is normalised: by minimum and maximum over the clip (``min_max``); by the same two as
            constants, which pass no gradient (``constant``); by those of each frame (``frame``); or by the clip's mean,
            which leaves no token without weight (``mean``).
        baseline: what weights tokens instead of Eq. 12, for comparison (:mod:`adatosk.soft_mask.baselines`): nothing
            (``uniform``), the change of their pixels, attention, or being in an active frame; ``none`` is the paper's
            mask.
        exclusion: tokens that are excluded: the most redundant ones by M, or any (``random``).
    """

    agnostic: bool = True
    semantic: Semantic = "A+M"
    top_k: int = Field(4, ge=1)
    distance: Distance = "l1"
    gate: Literal["literal", "mean_one"] = "mean_one"
    gate_reduction: int = Field(16, ge=1)
    axis: SoftmaxAxis = "clip"
    excluded_per_step: int = Field(4, ge=0)
    score_block: int | None = Field(7, ge=1)
    temperature: float = Field(0.1, ge=MIN_TEMPERATURE)
    activation: Activation = "normed"
    scaling: Scaling = "min_max"
    baseline: Baseline = "none"
    exclusion: Literal["redundant", "random"] = "redundant"

    @property
    def accumulates(self) -> bool:
        """Whether the accumulative score M is computed at all."""
        return SEMANTIC_SCORES[self.semantic]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.baseline != "none" and (self.agnostic or self.semantic != "none"):
            raise ValueError(
                f"baseline='{self.baseline}' replaces both masks: set agnostic to false and semantic to 'none'"
            )
        if not self.agnostic and self.semantic == self.baseline == "none":
            raise ValueError(
                "a soft mask without agnostic and without semantic part masks nothing: set soft_mask to null"
            )
        if self.activation == "scored" and self.score_block is None:
            raise ValueError("activation='scored' without score_block is the encoder's output: set it to 'raw'")
        if self.excluded_per_step and not self.accumulates and self.exclusion == "redundant":
            raise ValueError(
                f"excluded_per_step={self.excluded_per_step} ranks tokens by M, which semantic='{self.semantic}' does "
                "not compute: set excluded_per_step to 0, semantic to 'A+M' or 'M', or exclusion to 'random'"
            )
        return self


def check_exclusion(excluded_per_step: int, steps: int, visible: int) -> None:
    """Raise ``ValueError`` unless e·n_t < n_s, the paper's r·T < n_s (Table 2's empty cells)."""
    if excluded_per_step * steps >= visible:
        raise ValueError(
            f"excluding {excluded_per_step} tokens at each of {steps} steps needs more than "
            f"{excluded_per_step * steps} visible patches, there are {visible}: "
            f"at most excluded_per_step={(visible - 1) // steps}"
        )
