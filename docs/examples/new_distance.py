"""A frame distance of one's own: once registered, every configuration may name it. The model stays as it is."""

import torch
from torch import Tensor

from adatosk import create_model
from adatosk.soft_mask import frame_distance


@frame_distance("chebyshev")
def chebyshev(before: Tensor, after: Tensor) -> Tensor:
    """The largest change of any channel: frame means ``(B, n_t - 1, D)`` twice to ``(B, n_t - 1)``."""
    return (after - before).abs().amax(dim=-1)


model = create_model("adatosk_tiny", soft_mask={"distance": "chebyshev"}).eval()
mask = model(torch.randn(1, 3, 16, 32, 32), generator=torch.Generator().manual_seed(0)).soft_mask
print("active frames:", mask.active[0].nonzero().flatten().tolist())
