"""AdaTosk: adaptive temporal soft masks for dynamic facial expression recognition (arXiv 2502.21004)."""

from adatosk.config import ModelConfig, RunConfig, SoftMaskConfig
from adatosk.model import AdaTosk, create_model
from adatosk.presets import PROFILES

__all__ = ["PROFILES", "AdaTosk", "ModelConfig", "RunConfig", "SoftMaskConfig", "create_model"]
