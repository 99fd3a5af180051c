"""The two losses and their sum (Eq. 2, 3 and 13)."""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from adatosk.config import ModelConfig, TrainConfig
from adatosk.model import Output
from adatosk.tokens import IMAGENET_STD, as_floats, gather_patches, patchify, positions_of

# Clips whose targets are held as floats at once on a GPU: at the paper's size 7 MB each.
_AS_FLOATS = 16
_EPS = 1e-10


@dataclass(frozen=True)
class Losses:
    """Scalars: the weighted sum, the reconstruction loss and the classification loss."""

    total: Tensor
    reconstruction: Tensor
    classification: Tensor

    def detached(self) -> Self:
        """The same numbers without the graph that they were computed in, which a loss would keep in memory."""
        return replace(self, **{name: value.detach() for name, value in vars(self).items()})


def reconstruction_target(video: Tensor, visible: Tensor, config: ModelConfig, hidden: int | None = None) -> Tensor:
    """Pixels of the hidden patches in ascending position, ``(B, n_t, N_s - n_s, C·t·h·w)``.

    With ``config.normalise_target`` each colour channel of each patch has zero mean and unit variance, as in VideoMAE.

    Args:
        video: normalised, or uint8, of which only the hidden patches are normalised.
        hidden: N_s - n_s; counted from ``visible`` when omitted, which forces a GPU synchronisation.
    """
    patches = as_floats(_hidden_patches(video, visible, config, hidden))
    return _standardised(patches, _EPS) if config.normalise_target else patches


def _hidden_patches(video: Tensor, visible: Tensor, config: ModelConfig, hidden: int | None) -> Tensor:
    hidden = config.patches - int(visible[0].sum()) if hidden is None else hidden
    return gather_patches(patchify(video, config.tubelet, config.patch_size), positions_of(~visible, hidden))


def _standardised(patches: Tensor, eps: float) -> Tensor:
    """Each colour channel of patches ``(..., C·t·h·w)`` with zero mean and unit variance."""
    pixels = patches.unflatten(-1, (len(IMAGENET_STD), -1))  # (..., C, t·h·w)
    count = pixels.shape[-1]
    # layer_norm takes a single pass over the pixels. It divides by the biased standard deviation, VideoMAE by the
    # unbiased one.
    return F.layer_norm(pixels, (count,), eps=eps).mul_(((count - 1) / count) ** 0.5).flatten(-2)


def reconstruction_loss(reconstruction: Tensor | None, video: Tensor, visible: Tensor, config: ModelConfig) -> Tensor:
    """L_rec: mean squared error on the hard-masked patches (Eq. 3); 0 when nothing is hidden or reconstructed.

    On a GPU, bytes are compared by :func:`loss_from_bytes`.
    """
    if reconstruction is None:
        return torch.zeros((), device=video.device)
    hidden = reconstruction.shape[2]
    if hidden == 0:
        return reconstruction.sum() * 0
    if reconstruction.device.type == "cuda" and video.dtype == torch.uint8:
        return loss_from_bytes(reconstruction, video, visible, config)
    return F.mse_loss(reconstruction.float(), reconstruction_target(video, visible, config, hidden).float())


def loss_from_bytes(reconstruction: Tensor, video: Tensor, visible: Tensor, config: ModelConfig) -> Tensor:
    """:func:`reconstruction_loss` of uint8 clips, which holds the pixels of a few clips at a time as floats.

    At the paper's size and batch 64, the targets of a batch take 430 MB in float32, and so would their difference from
    the reconstruction and its gradient. Equal to rounding, in another order of summation.
    """
    return _SquaredError.apply(
        reconstruction, _hidden_patches(video, visible, config, reconstruction.shape[2]), config.normalise_target
    )


class _SquaredError(torch.autograd.Function):
    """Mean squared error of a reconstruction; its gradient is computed along with it, in the reconstruction's type."""

    @staticmethod
    def forward(ctx: Any, reconstruction: Tensor, patches: Tensor, standardise: bool) -> Tensor:
        gradient = torch.empty_like(reconstruction)
        total = torch.zeros((), device=reconstruction.device)
        # Standardising undoes what normalising a channel does, but for the scale of eps.
        eps = _EPS * (255 * min(IMAGENET_STD)) ** 2
        parts = (tensor.split(_AS_FLOATS) for tensor in (reconstruction, patches, gradient))
        for found, pixels, slope in zip(*parts, strict=True):
            target = _standardised(pixels.float(), eps) if standardise else as_floats(pixels)
            difference = found.float() - target
            total += difference.square().sum()
            slope.copy_(difference.mul_(2 / reconstruction.numel()))
        ctx.save_for_backward(gradient)
        return total / reconstruction.numel()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0], None, None


def total_loss(output: Output, video: Tensor, labels: Tensor, config: ModelConfig, train: TrainConfig) -> Losses:
    """L = λ_rec L_rec + λ_cls L_cls (Eq. 2); L_cls is the cross entropy (Eq. 13) of labels ``(B,)``.

    Args:
        video: what the model was given, normalised clips or their bytes.
    """
    reconstruction = reconstruction_loss(output.reconstruction, video, output.visible, config)
    classification = F.cross_entropy(output.logits.float(), labels)
    total = train.rec_weight * reconstruction + train.cls_weight * classification
    return Losses(total, reconstruction, classification)
