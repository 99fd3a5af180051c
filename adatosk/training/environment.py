"""Variables that would change how a run is trained under the same id: out of its sight while it is."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# accelerate takes its settings from these wherever the call leaves them open, plugins for sharded training included.
SETTINGS = ("ACCELERATE_", "FSDP_", "MEGATRON_LM_", "PARALLELISM_CONFIG_", "DEEPSPEED_", "XLA_USE_", "XLA_DOWNCAST_")
# Where a run is trained and what is said of it; results name the device.
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
# What `accelerate launch` sets for every program without having been asked to.
_UNASKED = {"", "0", "1", "no", "false", "none", "default"}


@contextmanager
def configuration_alone(report: Callable[[str], None]) -> Iterator[None]:
    """Hide accelerate's variables while the block runs, so that the configuration alone says how a run is trained.

    Args:
        report: gets a line with those that would have changed something.
    """
    hidden = {name: value for name, value in os.environ.items() if name.startswith(SETTINGS) and name not in _HARMLESS}
    said = sorted(name for name, value in hidden.items() if value.lower() not in _UNASKED)
    if said:
        report(f"not followed, for the run's configuration alone says how it is trained: {', '.join(said)}")
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)
