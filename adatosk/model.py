"""AdaTosk: a masked autoencoder with a classification branch behind a temporal soft mask (Figure 2)."""

from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import PyTorchModelHubMixin
from safetensors import SafetensorError
from torch import Tensor, nn

from adatosk.config import ModelConfig
from adatosk.presets import MODELS
from adatosk.soft_mask import SoftMask, TemporalSoftMask
from adatosk.tokens import (
    as_floats,
    check_mask,
    complementary_masks,
    gather_patches,
    patchify,
    positions_of,
    tube_mask,
)
from adatosk.transformer import Decoder, Encoder, Head, PatchEmbed
from adatosk.utils.provenance import file_digest, recorded_digest, scores_of
from adatosk.utils.tensors import write_tensors


@dataclass(frozen=True)
class Output:
    """The result of one forward pass through both branches.

    Attributes:
        logits: ``(B, classes)``, before the softmax.
        reconstruction: predicted pixels of the hidden patches in ascending position, ``(B, n_t, N_s - n_s, C·t·h·w)``;
            ``None`` if not requested.
        visible: the hard mask H, bool ``(B, N_s)``, True = visible.
        soft_mask: the temporal soft mask, or ``None`` for a model without one.
    """

    logits: Tensor
    reconstruction: Tensor | None
    visible: Tensor
    soft_mask: SoftMask | None


LONGEST_REASON = 300  # characters: for a file of other weights, torch would list every missing one
_OTHER = "name a folder that save_pretrained wrote, such as runs/<run id>/checkpoints/last, or train the model again"


def _check_recorded(folder: Path, config: ModelConfig) -> None:
    """Raise a `ValueError` if weights or configuration are damaged, or not those of the run's scores.

    Many a value in a damaged configuration would fit the weights and change what they compute.
    """
    weights, said = folder / "model.safetensors", ""
    scores = scores_of(weights) or {}
    expected, recorded = recorded_digest(weights, scores), scores.get("config", {}).get("model")
    if expected is not None and weights.is_file() and (digest := file_digest(weights)) != expected:
        said = f"{weights}: its SHA-256 is {digest}, and the run's metrics.json names {expected}"
    elif recorded is not None and ModelConfig.model_validate(recorded) != config:
        said = f"{folder / 'config.json'}: another configuration than in the run's metrics.json"
    if said:
        ships = (folder / "metrics.json").is_file()
        advice = "git checkout restores it" if ships else "delete the folder and train the run again for its weights"
        raise ValueError(f"{said}: damaged, or of another training; {advice}")


class AdaTosk(
    nn.Module,
    PyTorchModelHubMixin,
    library_name="adatosk",
    coders={ModelConfig: (lambda config: config.model_dump(mode="json"), ModelConfig.model_validate)},
):
    """The whole model; create one with :func:`create_model`.

    Args:
        config: the architecture.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.encoder_to_decoder = nn.Linear(config.width, config.decoder_width, bias=False)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, 1, config.decoder_width))
        self.decoder = Decoder(config)
        self.head = Head(config.width, len(config.classes), config.head_norm)
        mask = config.soft_mask
        self.soft_mask = None if mask is None else TemporalSoftMask(config.width, mask, self.head.frozen)
        self.apply(_initialise)
        nn.init.normal_(self.mask_token, std=0.02)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> "AdaTosk":
        """Load what :meth:`save_pretrained` wrote, from a folder or the hub; safetensors only, and strictly.

        Raises:
            FileNotFoundError: the folder lacks one of its two files.
            ValueError: the configuration or the weights are not this package's, do not match each other, are not
                finite, or are not the ones that the run's scores were measured with; the message names the folder and
                the problem.
        """
        source, options = pretrained_model_name_or_path, dict[str, Any](kwargs, strict=True)
        if Path(source).is_dir():
            try:
                config = ModelConfig.read(Path(source) / "config.json")
            except ValueError as error:
                raise ValueError(f"{error}: {_OTHER}") from error
            _check_recorded(Path(source), config)
        try:
            with redirect_stdout(StringIO()):  # the hub's loader prints a line for each local model
                # The hub's loader is not strict by default: weights missing from the file would stay random.
                model = super().from_pretrained(source, **options)
        except (RuntimeError, SafetensorError, ValueError, TypeError, KeyError) as error:
            said = "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
            said = said if len(said) < LONGEST_REASON else said[:LONGEST_REASON] + " …"
            raise ValueError(f"{source}: no weights of the model in its config.json ({said}): {_OTHER}") from error
        for name, value in model.state_dict().items():
            if value.is_floating_point() and not value.isfinite().all():
                raise ValueError(f"{source}: the weight {name} is not finite, as after a run that diverged: {_OTHER}")
        return model

    def _save_pretrained(self, save_directory: Path) -> None:
        """Write the weights for :meth:`save_pretrained`, which writes everything else."""
        write_tensors(save_directory / "model.safetensors", self.state_dict())

    def forward(
        self,
        video: Tensor,
        visible: Tensor | None = None,
        generator: torch.Generator | None = None,
        reconstruct: bool = True,
        count: int | None = None,
    ) -> Output:
        """Run both branches on normalised clips.

        Args:
            video: float ``(B, C, T, H, W)``; or the clips' bytes, uint8, of which only visible patches are normalised.
            visible: the hard mask, bool ``(B, N_s)``, on any device; checking one on the CPU avoids a GPU
                synchronisation. Drawn with ``generator`` by default.
            generator: random generator of the draw; torch's global one by default.
            reconstruct: whether to run the decoder.
            count: the number of patches that ``visible`` is known to show of each clip. Such a mask is not checked, so
                that one on a GPU is not waited for, and a CUDA graph may hold the pass.

        Raises:
            ValueError: for a clip or mask of the wrong shape, or a mask with too few visible patches to exclude from.
        """
        self._check_clip(video)
        if visible is None:
            visible, count = self._draw(len(video), generator), self.config.visible_patches
        elif count is None:
            count = check_mask(visible, len(video), self.config.patches)
        visible = visible.to(video.device)
        # The visible ones come first, then the hidden ones, both in ascending order.
        positions, hidden = positions_of(visible, self.config.patches).tensor_split((count,), dim=1)
        logits, reconstruction, mask = self._branches(video, positions, hidden, reconstruct)
        return Output(logits, reconstruction, visible, mask)

    def _branches(
        self, video: Tensor, positions: Tensor, hidden: Tensor, reconstruct: bool
    ) -> tuple[Tensor, Tensor | None, SoftMask | None]:
        """Logits, reconstruction and soft mask; a function of tensors alone, so that it compiles as one graph."""
        patches = patchify(video, self.config.tubelet, self.config.patch_size)
        tokens, mask = self.look(patches, positions)
        logits = self._classify_tokens(tokens, mask)
        if not reconstruct:
            return logits, None, mask
        return logits, self.decoder(self.encoder_to_decoder(tokens), self.mask_token, positions, hidden), mask

    def compile(self, **options: Any) -> None:
        """Compile both branches, and the classifier alone, each as one graph; masks are drawn and checked outside it.

        Prefer this to ``torch.compile(model)``, whose graph breaks where a mask is checked.

        Args:
            **options: passed to ``torch.compile``.
        """
        options = {"fullgraph": True, **options}
        self._branches = torch.compile(self._branches, **options)
        self.classify_visible = torch.compile(self.classify_visible, **options)

    def classify(
        self,
        video: Tensor,
        views: int = 1,
        complementary: bool = False,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Logits of normalised clips, averaged over hard-mask draws; no decoder.

        Args:
            video: float ``(B, C, T, H, W)``.
            views: number of draws, or of partitions.
            complementary: each view is a random partition of the patches into ``floor(N_s / n_s)`` masks, so that
                every patch is seen exactly once.
            generator: random generator of the draws; seeded with 0 by default, so that logits are reproducible.

        Returns:
            ``(B, classes)``.
        """
        self._check_clip(video)
        if views < 1:
            raise ValueError(f"views must be at least 1, got {views}")
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        masks: list[Tensor] = []
        for _ in range(views):
            if complementary:
                masks += complementary_masks(len(video), self.config.patches, self.config.mask_ratio, generator)
            else:
                masks.append(self._draw(len(video), generator))
        return self.classify_masks(video, masks)

    def classify_masks(self, video: Tensor, masks: list[Tensor]) -> Tensor:
        """Logits ``(B, classes)`` averaged over the given hard masks, each bool ``(B, N_s)``."""
        counts = [check_mask(mask, len(video), self.config.patches) for mask in masks]
        patches = patchify(video, self.config.tubelet, self.config.patch_size)
        positions = [positions_of(mask, count).to(video.device) for mask, count in zip(masks, counts, strict=True)]
        return torch.stack([self.classify_visible(patches, where) for where in positions]).mean(dim=0)

    def classify_visible(self, patches: Tensor, positions: Tensor) -> Tensor:
        """Logits from tubelets ``(B, n_t, N_s, C·t·h·w)`` at the visible ``positions`` ``(B, n)``; exportable."""
        return self._classify_tokens(*self.look(patches, positions))

    def look(self, patches: Tensor, positions: Tensor) -> tuple[Tensor, SoftMask | None]:
        """Encoded visible tokens ``(B, n_t, n, D)`` and their soft mask; see :meth:`classify_visible`."""
        raw, early, scored = self.encoder.encode(patches, positions, self.soft_mask)
        tokens = self.encoder.norm(raw)
        if self.soft_mask is None:
            return tokens, None
        inner = early if self.soft_mask.config.activation == "scored" else raw
        wanted = self.soft_mask.config.baseline == "pixels"
        pixels = as_floats(gather_patches(patches, positions)) if wanted else None
        return tokens, self.soft_mask(tokens, scored, inner, positions, pixels)

    def _classify_tokens(self, tokens: Tensor, mask: SoftMask | None) -> Tensor:
        if mask is None:
            return self.head(tokens.mean(dim=(1, 2)))
        kept = mask.kept.sum(dim=(1, 2))[:, None].to(tokens.dtype)
        pooled = (tokens * mask.weights).sum(dim=(1, 2)) / kept  # avgpool(X^opt), Eq. 13
        return self.head(pooled)

    def freeze_decoder(self) -> None:
        """Freeze the parameters that only the reconstruction uses, for runs without that loss."""
        for part in (self.encoder_to_decoder, self.decoder):
            part.requires_grad_(False)
        self.mask_token.requires_grad_(False)

    def no_weight_decay(self) -> set[str]:
        """Parameters besides biases and norms that timm's optimiser factory excludes from weight decay."""
        return {"mask_token"}

    def _draw(self, batch: int, generator: torch.Generator | None) -> Tensor:
        return tube_mask(batch, self.config.patches, self.config.mask_ratio, generator)

    def _check_clip(self, video: Tensor) -> None:
        config = self.config
        expected = (3, config.frames, config.image_size, config.image_size)
        if video.ndim != 5 or tuple(video.shape[1:]) != expected:
            raise ValueError(f"a clip must be (B, {', '.join(map(str, expected))}), got {tuple(video.shape)}")


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        biased = module
    elif isinstance(module, PatchEmbed):
        biased = module.proj
        nn.init.xavier_uniform_(biased.weight.view(len(biased.weight), -1))
    else:
        return
    if biased.bias is not None:
        nn.init.zeros_(biased.bias)


def create_model(name_or_config: str | ModelConfig = "adatosk_base", **overrides: Any) -> AdaTosk:
    """Create a model with random weights.

    Args:
        name_or_config: ``adatosk_base`` (the paper's ViT-B/16 at 224²), ``adatosk_small`` (profile demo),
            ``adatosk_tiny`` (profile smoke), or a configuration.
        **overrides: fields of :class:`~adatosk.config.ModelConfig` to change; ``soft_mask`` may be a dict of those of
            its fields that change.

    Raises:
        ValueError: for an unknown name, an unknown field or an impossible value.
    """
    if isinstance(name_or_config, str):
        if name_or_config not in MODELS:
            raise ValueError(f"unknown model '{name_or_config}': choose {', '.join(MODELS)}")
        name_or_config = MODELS[name_or_config]
    return AdaTosk(name_or_config.change(**overrides))


def with_mask_options(model: AdaTosk, mask_ratio: float | None = None, **options: Any) -> AdaTosk:
    """A copy with the same weights, in evaluation mode, under another hard mask ratio and other soft mask options.

    Args:
        mask_ratio: ρ; by default the model's own.
        **options: fields of :class:`~adatosk.config.SoftMaskConfig` that leave the weights' shapes as they are, such as
            ``top_k``, ``distance``, ``excluded_per_step`` and ``temperature``. ``None`` leaves one as it is.

    Raises:
        ValueError: for an unknown option or an impossible value, or one that needs other weights.
    """
    config = model.config.change(
        mask_ratio=model.config.mask_ratio if mask_ratio is None else mask_ratio,
        soft_mask={name: value for name, value in options.items() if value is not None},
    )
    changed = AdaTosk(config).eval()
    try:
        changed.load_state_dict(model.state_dict())
    except RuntimeError as error:
        raise ValueError(f"{', '.join(options)}: this needs other weights than the model has; train it so") from error
    return changed
