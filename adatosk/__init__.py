"""AdaTosk: adaptive temporal soft masks for dynamic facial expression recognition (arXiv 2502.21004)."""

from importlib import import_module
from typing import Any

# Where each public name lives. They are imported lazily, so that a process that only decodes video does not have to
# import torch.
_NAMES = {
    "AdaTosk": "model",
    "ModelConfig": "config",
    "PROFILES": "presets",
    "RunConfig": "config",
    "SoftMaskConfig": "config",
    "create_model": "model",
}

__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'adatosk' has no attribute '{name}'")
    return getattr(import_module(f"adatosk.{_NAMES[name]}"), name)
