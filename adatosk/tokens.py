"""From a clip to tokens and back: pixels, tubelets, positions and the random tube mask (section 3.1).

Masks are bool with **True = visible** everywhere in this package.
"""

import torch
from einops import rearrange
from torch import Tensor

from adatosk.config import visible_count

# The statistics that VideoMAE's checkpoints expect.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalise(video: Tensor) -> Tensor:
    """uint8 ``(..., C, T, H, W)`` to float32, standardised by ImageNet's channel statistics, on the video's device."""
    mean, std = (_by_channel(values, video.device)[:, None, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    return (video.float() / 255 - mean) / std


def as_floats(patches: Tensor) -> Tensor:
    """Patches ``(..., C·t·h·w)`` as they are, or, if they are bytes, what :func:`normalise` makes of their pixels.

    Bytes that are gathered first and normalised then give the same values as the other way round, and take a quarter of
    the memory until then.
    """
    if patches.dtype != torch.uint8:
        return patches
    return normalise(patches.unflatten(-1, (len(IMAGENET_MEAN), -1, 1, 1))).flatten(-4)


def _by_channel(values: tuple[float, ...], device: torch.device) -> Tensor:
    # Filled there: a GPU would wait for a copy of a list's values, and a CUDA graph must not contain one.
    return torch.stack([torch.full((), value, device=device) for value in values])


def patchify(video: Tensor, tubelet: int, patch: int) -> Tensor:
    """Cut a clip into tubelets of t frames by h × w pixels.

    Args:
        video: ``(B, C, T, H, W)``.
        tubelet: t, frames of a token.
        patch: h = w, side of a token in pixels.

    Returns:
        ``(B, n_t, N_s, C·t·h·w)``, with the pixels of a token in the order of a 3-D convolution's weight.

    Raises:
        ValueError: when T, H or W is not a multiple.
    """
    _, _, frames, height, width = video.shape
    if frames % tubelet or height % patch or width % patch:
        raise ValueError(
            f"a clip of {frames} frames of {height}×{width} pixels does not divide into tubelets of "
            f"{tubelet}×{patch}×{patch}"
        )
    return rearrange(video, "b c (nt t) (nh h) (nw w) -> b nt (nh nw) (c t h w)", t=tubelet, h=patch, w=patch)


def unpatchify(patches: Tensor, tubelet: int, patch: int) -> Tensor:
    """Invert :func:`patchify`: ``(B, n_t, N_s, C·t·h·w)`` to ``(B, 3, T, H, W)`` for a square frame."""
    side = round(patches.shape[2] ** 0.5)
    pattern = "b nt (nh nw) (c t h w) -> b c (nt t) (nh h) (nw w)"
    return rearrange(patches, pattern, nh=side, c=3, t=tubelet, h=patch, w=patch)


def sinusoid_positions(count: int, width: int) -> Tensor:
    """Fixed sinusoid positions in VideoMAE's layout: ``(count, width)``, sine in even and cosine in odd channels."""
    channel = torch.arange(width, dtype=torch.float64)
    angle = torch.arange(count, dtype=torch.float64)[:, None] / 10000 ** (2 * (channel // 2) / width)
    return torch.where(channel % 2 == 0, angle.sin(), angle.cos()).float()


def tube_mask(batch: int, patches: int, ratio: float, generator: torch.Generator | None = None) -> Tensor:
    """The random binary hard mask H, one spatial draw per clip, shared by all its frames (section 3.1).

    Args:
        batch: B clips.
        patches: N_s patch positions of a frame.
        ratio: ρ in [0, 1), the share of hidden patches.
        generator: random generator of the draw; the mask is on its device.

    Returns:
        bool ``(B, N_s)``, True = visible, exactly ``floor(N_s (1 - ρ))`` of them in each row.
    """
    if not 0 <= ratio < 1:
        raise ValueError(f"mask ratio must lie in [0, 1), got {ratio}")
    count = visible_count(patches, ratio)
    if count < 1:
        raise ValueError(f"mask ratio {ratio} leaves none of {patches} patches visible")
    return _ranks(batch, patches, generator) < count


def complementary_masks(
    batch: int, patches: int, ratio: float, generator: torch.Generator | None = None
) -> list[Tensor]:
    """A random partition of the patch positions into ``floor(N_s / n_s)`` views, each patch being visible in one.

    Returns:
        list of bool ``(B, N_s)``; the parts' sizes differ by at most one and none is smaller than n_s.
    """
    parts = patches // visible_count(patches, ratio)
    ranks = _ranks(batch, patches, generator)
    return [ranks % parts == part for part in range(parts)]


def _ranks(batch: int, patches: int, generator: torch.Generator | None) -> Tensor:
    device = generator.device if generator is not None else "cpu"
    noise = torch.rand(batch, patches, generator=generator, device=device)
    return noise.argsort(dim=1).argsort(dim=1)


def positions_of(mask: Tensor, count: int) -> Tensor:
    """Ascending indices of the True entries: bool ``(B, N)`` with ``count`` in each row to int64 ``(B, count)``."""
    # Unlike nonzero(), a stable sort has a static shape, so it can be compiled and exported. Older ONNX runtimes cannot
    # sort bytes.
    return mask.to(torch.int32).argsort(dim=1, descending=True, stable=True)[:, :count]


def check_mask(visible: Tensor, batch: int, patches: int) -> int:
    """Number of visible patches per row; ``ValueError`` for a wrong shape or type, or if it differs between rows."""
    if visible.dtype != torch.bool or visible.shape != (batch, patches):
        raise ValueError(f"visible must be bool {(batch, patches)}, got {visible.dtype} {tuple(visible.shape)}")
    counts = visible.sum(dim=1)
    if not bool((counts == counts[0]).all()) or int(counts[0]) == 0:
        raise ValueError(
            f"each clip must show the same number of patches, at least one; got {counts.unique().tolist()}"
        )
    return int(counts[0])


def gather_patches(tokens: Tensor, positions: Tensor) -> Tensor:
    """Pick patch positions in every tubelet step: ``(B, n_t, N_s, D)`` at ``(B, n)`` gives ``(B, n_t, n, D)``."""
    index = positions[:, None, :, None].expand(-1, tokens.shape[1], -1, tokens.shape[3])
    return tokens.gather(2, index)
