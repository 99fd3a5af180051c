"""Hides environment variables that would change how a run is trained without changing its id."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# accelerate takes settings that the call omits from these, including plugins for sharded training.
SETTINGS = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "DEEPSPEED_", "XLA_USE_", "XLA_DOWNCAST_")
# These affect only the device, which results record, and logging.
_HARMLESS = (
    "ACCELERATE_BYPASS_DEVICE_MAP",
    "ACCELERATE_CPU_AFFINITY",
    "ACCELERATE_DEBUG_MODE",
    "ACCELERATE_DEBUG_RDV_FILE",
    "ACCELERATE_ENABLE_RICH",
    "ACCELERATE_LOG_LEVEL",
    "ACCELERATE_TORCH_DEVICE",
    "ACCELERATE_USE_CPU",
)
# Values that `accelerate launch` sets for every program by default.
_UNASKED = {"", "0", "1", "no", "false", "none", "default"}


@contextmanager
def configuration_alone(report: Callable[[str], None]) -> Iterator[None]:
    """Hide accelerate's variables while the block runs, so that only the configuration determines the training.

    Args:
        report: called with a message about those that would have had an effect.
    """
    hidden = {name: value for name, value in os.environ.items() if name.startswith(SETTINGS) and name not in _HARMLESS}
    said = sorted(name for name, value in hidden.items() if value.lower() not in _UNASKED)
    if said:
        report(f"ignored, because only the run's configuration determines its training: {', '.join(said)}")
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
