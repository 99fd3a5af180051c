"""Random streams named by integers, so that a draw depends on what it is for and not on who made it before."""

import numpy as np
import torch


def generator(*parts: int) -> torch.Generator:
    """A CPU generator seeded by the tuple ``parts``, such as (seed, epoch, step); equal tuples give equal draws."""
    # The length leads, for numpy takes (0, 1) and (0, 1, 0) for the same.
    state = np.random.SeedSequence((len(parts), *parts)).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
