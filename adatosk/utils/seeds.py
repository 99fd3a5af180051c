"""Random streams named by integers, so that a draw depends on its purpose and not on earlier draws."""

import numpy as np
import torch


def generator(*parts: int) -> torch.Generator:
    """A CPU generator seeded by the tuple ``parts``, such as (seed, epoch, step); equal tuples give equal draws."""
    # The length comes first, because numpy does not distinguish (0, 1) from (0, 1, 0).
    state = np.random.SeedSequence((len(parts), *parts)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
