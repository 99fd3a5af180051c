"""The two losses and their sum (Eq. 2, 3 and 13)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from adatosk.config import ModelConfig, TrainConfig
from adatosk.model import Output
from adatosk.tokens import gather_patches, patchify, positions_of


@dataclass(frozen=True)
class Losses:
    """Scalars: the weighted sum, the reconstruction loss and the classification loss."""

    total: Tensor
    reconstruction: Tensor
    classification: Tensor


def reconstruction_target(video: Tensor, visible: Tensor, config: ModelConfig, hidden: int | None = None) -> Tensor:
    """Pixels of the hidden patches in ascending position, ``(B, n_t, N_s - n_s, C·t·h·w)``.

    With ``config.normalise_target`` each colour channel of each patch has zero mean and unit variance, as in VideoMAE.

    Args:
        hidden: N_s - n_s; counted from ``visible`` when omitted, which forces a GPU synchronisation.
    """
    hidden = config.patches - int(visible[0].sum()) if hidden is None else hidden
    patches = gather_patches(patchify(video, config.tubelet, config.patch_size), positions_of(~visible, hidden))
    if not config.normalise_target:
        return patches
    pixels = patches.unflatten(-1, (video.shape[1], -1))  # (B, n_t, m, C, t·h·w)
    count = pixels.shape[-1]
    # layer_norm takes a single pass over the pixels. It divides by the biased standard deviation, VideoMAE by the
    # unbiased one.
    return F.layer_norm(pixels, (count,), eps=1e-10).mul_(((count - 1) / count) ** 0.5).flatten(-2)


def reconstruction_loss(reconstruction: Tensor | None, video: Tensor, visible: Tensor, config: ModelConfig) -> Tensor:
    """L_rec: mean squared error on the hard-masked patches (Eq. 3); 0 when nothing is hidden or reconstructed."""
    if reconstruction is None:
        return video.new_zeros(())
    hidden = reconstruction.shape[2]
    if hidden == 0:
        return reconstruction.sum() * 0
    return F.mse_loss(reconstruction.float(), reconstruction_target(video, visible, config, hidden).float())


def total_loss(output: Output, video: Tensor, labels: Tensor, config: ModelConfig, train: TrainConfig) -> Losses:
    """L = λ_rec L_rec + λ_cls L_cls (Eq. 2); L_cls is the cross entropy (Eq. 13) of labels ``(B,)``."""
    reconstruction = reconstruction_loss(output.reconstruction, video, output.visible, config)
    classification = F.cross_entropy(output.logits.float(), labels)
    total = train.rec_weight * reconstruction + train.cls_weight * classification
    return Losses(total, reconstruction, classification)
