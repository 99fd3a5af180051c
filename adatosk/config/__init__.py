"""Frozen, validated configurations of a model and of a run; their presets are in :mod:`adatosk.presets`."""

from adatosk.config.frozen import Frozen
from adatosk.config.model import HeadNorm, ModelConfig, visible_count
from adatosk.config.run import DataConfig, EvalConfig, RunConfig, TrainConfig, Weights
from adatosk.config.soft_mask import (
    FRAME_DISTANCES,
    MIN_TEMPERATURE,
    SEMANTIC_SCORES,
    Scaling,
    SoftMaskConfig,
    SoftmaxAxis,
    check_exclusion,
)
