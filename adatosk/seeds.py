"""Random streams named by integers, so that a draw depends on what it is for and not on who made it before."""

import numpy as np
import torch


def generator(*parts: int) -> torch.Generator:
    """A CPU generator seeded by the tuple ``parts``, such as (seed, epoch, step); equal tuples give equal draws."""
    state = np.random.SeedSequence(parts).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(state[0]) << 31 | int(state[1]) >> 1)
