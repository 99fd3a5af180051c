"""The configuration of a model: Figure 2's sizes, the hard mask's ratio, and the soft mask's options."""

from typing import Literal, Self

from pydantic import Field, model_validator

from adatosk.config.frozen import Frozen
from adatosk.config.soft_mask import SoftMaskConfig, check_exclusion

HeadNorm = Literal["layer", "batch"]


class ModelConfig(Frozen):
    """Architecture (sections 3.1 and 4.1); the defaults are the paper's ViT-B/16 on 16 frames of 224².

    Attributes:
        classes: class names; the index of a logit is the name's place here.
        frames, image_size: T and H = W of a clip, in frames and pixels.
        tubelet, patch_size: t frames by h = w pixels make one token.
        width, depth, heads, mlp_ratio: the encoder.
        decoder_width, decoder_depth, decoder_heads: the decoder ("512-dim", one layer in the paper).
        mask_ratio: ρ, the share of patch positions that the hard mask hides.
        head_norm: how the pooled feature is normalised before the two-layer head (Eq. 13): ``layer``, or ``batch``,
            which uses its running statistics in evaluation, so that a clip's scores never depend on its batch.
        soft_mask: the temporal soft mask, or ``None`` for the row of Table 1 without it.
        normalise_target: reconstruct patches normalised to zero mean and unit variance, as VideoMAE does.
    """

    what = "model configuration"
    classes: tuple[str, ...] = ("happy", "sad", "neutral", "angry", "surprise", "disgust", "fear")
    frames: int = Field(16, ge=2)
    image_size: int = Field(224, ge=8)
    tubelet: int = Field(2, ge=1)
    patch_size: int = Field(16, ge=2)
    width: int = Field(768, ge=4)
    depth: int = Field(12, ge=1)
    heads: int = Field(12, ge=1)
    mlp_ratio: float = Field(4.0, gt=0)
    decoder_width: int = Field(512, ge=4)
    decoder_depth: int = Field(1, ge=1)
    decoder_heads: int = Field(16, ge=1)
    mask_ratio: float = Field(0.7, ge=0, lt=1)
    head_norm: HeadNorm = "layer"
    soft_mask: SoftMaskConfig | None = SoftMaskConfig()
    normalise_target: bool = True

    @property
    def steps(self) -> int:
        """n_t, temporal positions of a clip."""
        return self.frames // self.tubelet

    @property
    def grid(self) -> int:
        """Patches along one side of a frame."""
        return self.image_size // self.patch_size

    @property
    def patches(self) -> int:
        """N_s, patch positions of a frame."""
        return self.grid**2

    @property
    def visible_patches(self) -> int:
        """n_s = floor(N_s (1 - ρ))."""
        return visible_count(self.patches, self.mask_ratio)

    @property
    def required_soft_mask(self) -> SoftMaskConfig:
        """The soft mask, for what makes no sense without one; ValueError where it is ``None``."""
        if self.soft_mask is None:
            raise ValueError("this model has no soft mask: choose one whose soft_mask is not null")
        return self.soft_mask

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for whole, part, what in (
            (self.image_size, self.patch_size, "image_size {} is not a multiple of patch_size {}"),
            (self.frames, self.tubelet, "frames {} is not a multiple of tubelet {}"),
            (self.width, self.heads, "width {} is not a multiple of heads {}"),
            (self.decoder_width, self.decoder_heads, "decoder_width {} is not a multiple of decoder_heads {}"),
        ):
            if whole % part:
                raise ValueError(what.format(whole, part))
        if len(set(self.classes)) != len(self.classes) or len(self.classes) < 2:
            raise ValueError(f"classes must be at least two different names, got {self.classes}")
        if self.visible_patches < 1:
            raise ValueError(f"mask_ratio {self.mask_ratio} leaves none of {self.patches} patches visible")
        if self.soft_mask is not None:
            self._check_soft_mask(self.soft_mask)
        return self

    def _check_soft_mask(self, mask: SoftMaskConfig) -> None:
        if mask.agnostic and mask.top_k > self.steps - 1:
            raise ValueError(f"top_k={mask.top_k} exceeds the {self.steps - 1} frame differences of {self.steps} steps")
        if mask.score_block is not None and mask.score_block > self.depth:
            raise ValueError(f"score_block={mask.score_block} lies beyond the encoder's {self.depth} blocks")
        if mask.agnostic and self.width < mask.gate_reduction:
            raise ValueError(f"gate_reduction={mask.gate_reduction} narrows width {self.width} to nothing")
        check_exclusion(mask.excluded_per_step, self.steps, self.visible_patches)


def visible_count(patches: int, ratio: float) -> int:
    """n_s = floor(N_s (1 - ρ)): 147, 98 and 58 of 196 patches for ρ = 25, 50 and 70 %."""
    # Rounding first keeps 10 · (1 - 0.7) at 3 instead of 2.9999…
    return int(round(patches * (1 - ratio), 9))
