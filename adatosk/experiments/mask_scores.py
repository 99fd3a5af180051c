"""Do the masks find what moves? Scored against ground truth, which rendered clips have and filmed ones lack.

In time: do the active frames (Eq. 5) fall where the expression moves, compared with chance and with plain differences
of pixels? In space: how much of a mask's weight lies on the face regions that the expression moves, compared with the
same weight on every visible token? Every score comes with its expected value under chance, computed exactly, and with
the best value that the clip allows.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
import torch
from einops import reduce
from torch import Tensor

from adatosk.clips import ClipDataset, make_loader, model_input
from adatosk.config import EvalConfig, ModelConfig, Scaling
from adatosk.evaluate import clip_masks
from adatosk.experiments.localisation import Score, mass, pointing, precision, recall
from adatosk.model import AdaTosk
from adatosk.soft_mask import SoftMask, active_frames, class_semantic_mask, frame_differences, semantic_scores
from adatosk.synthetic import GroundTruth, load_truth
from adatosk.synthetic.action_units import moving_regions
from adatosk.tokens import check_mask, gather_patches, patchify, positions_of
from adatosk.utils.devices import moved
from adatosk.video import frame_indices

# What can move from one tubelet step to the next, and the smallest change that counts: intensities of action units,
# closed eyes and the open mouth in [0, 1], positions as fractions of the frame.
MOVES = {"expression": 0.1, "second expression": 0.05, "blink": 0.1, "talking": 0.05, "head": 0.005}
# The expression shows from this intensity.
SHOWS = 0.1
# What the weights are scored on: the target, and the steps whose tokens count.
TARGETS = (
    ("moving regions", "all"),
    ("moving regions", "expression"),
    ("face", "all"),
    ("expression shown", "all"),
)


@dataclass(frozen=True, eq=False)
class StepTruth:
    """The ground truth of N clips, at the tubelet steps and patches of a model.

    Attributes:
        ids, labels: of the clips.
        moving: bool ``(N, n_t)`` by the names of ``MOVES``: whether it moves between the previous step and this one.
        shown: bool ``(N, n_t)``, the expression shows; never in a neutral clip.
        regions: share of each patch, ``(N, n_t, N_s)`` in [0, 1], that lies in the regions which the class moves
            (``moving regions``; none in a neutral clip) and in any region of the face (``face``).
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    moving: dict[str, Tensor]
    shown: Tensor
    regions: dict[str, Tensor]


def step_truth(dataset: ClipDataset, config: ModelConfig) -> StepTruth:
    """The ground truth of a rendered split, at the model's steps and patches.

    Args:
        dataset: clips of the embedded benchmark as they are tested: the span centred, the frame whole.
        config: the model's frames, tubelets and patches.

    Raises:
        FileNotFoundError: a clip has no ground truth; only rendered ones do.
    """
    moving = {name: [] for name in MOVES}
    shown, regions = [], {"moving regions": [], "face": []}
    labels = tuple(config.classes[label] for label in dataset.labels)
    for clip, label in zip(dataset.ids, labels, strict=True):
        truth = load_truth(dataset.root, clip)
        sampled = frame_indices(len(truth.talk), config.frames, dataset.stride)
        for name, signal in _signals(truth).items():
            moving[name].append(_step_changes(signal[sampled], config.steps) > MOVES[name])
        shown.append(truth.action_units[sampled].max(1).reshape(config.steps, -1).mean(1) > SHOWS)
        moved = [truth.region_names.index(name) for name in moving_regions(label)]
        regions["moving regions"].append(patch_shares(truth.regions[sampled][:, moved], config))
        regions["face"].append(patch_shares(truth.regions[sampled], config))

    def stack(arrays: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(arrays))

    return StepTruth(
        tuple(dataset.ids),
        labels,
        {name: stack(arrays) for name, arrays in moving.items()},
        stack(shown),
        {name: stack(arrays) for name, arrays in regions.items()},
    )


def _signals(truth: GroundTruth) -> dict[str, np.ndarray]:
    """What can move, ``(frames, any number)`` by the names of ``MOVES``; the boxes of the face follow the head."""
    return {
        "expression": truth.action_units,
        "second expression": truth.distraction,
        "blink": truth.blink[:, None],
        "talking": truth.talk[:, None],
        "head": truth.regions.reshape(len(truth.regions), -1),
    }


def _step_changes(signal: np.ndarray, steps: int) -> np.ndarray:
    """Largest change from one tubelet step to the next: ``(T, any)`` to ``(n_t,)``, 0 at the first."""
    means = signal.reshape(steps, -1, signal.shape[1]).mean(1)
    return np.abs(np.diff(means, axis=0, prepend=means[:1])).max(1)


def patch_shares(boxes: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Share of each patch that lies in any of the boxes, averaged over the frames of a tubelet.

    Args:
        boxes: ``(T, any number, 4)``, x0, y0, x1, y1 in [0, 1].

    Returns:
        float32 ``(n_t, N_s)`` in [0, 1]; all 0 without boxes.
    """
    centres = (np.arange(config.image_size) + 0.5) / config.image_size
    left, top, right, bottom = (boxes[..., [edge]] for edge in range(4))
    across, down = (left <= centres) & (centres < right), (top <= centres) & (centres < bottom)
    inside = np.any(down[..., :, None] & across[..., None, :], axis=1)  # (T, H, W)
    pattern, patch = "(nt t) (nh h) (nw w) -> nt (nh nw)", config.patch_size
    return reduce(inside.astype(np.float32), pattern, "mean", t=config.tubelet, h=patch, w=patch)


@torch.inference_mode()
def score_masks(
    model: AdaTosk, dataset: ClipDataset, truth: StepTruth, evaluation: EvalConfig | None = None
) -> pd.DataFrame:
    """Score a model's masks, with the deterministic hard mask of each clip (one view).

    Clips without the target are left out: neutral ones have no expression that could move, and in some clips no visible
    patch lies on a moving region.

    Args:
        model: with a soft mask; it is switched to evaluation mode and back.
        dataset: the test split, without augmentation.
        truth: of this split, from :func:`step_truth`.
        evaluation: seed of the hard masks and batch size; by default those of ``EvalConfig()``.

    Returns:
        one row per clip and score: ``id``, ``label``; ``score`` (``precision``, ``recall``, ``mass``, ``pointing``);
        ``source``, the frames or weights that are scored; ``target``, what they should find; ``steps`` whose tokens
        count; ``value``, ``chance`` and ``best``, see :class:`~adatosk.experiments.localisation.Score`. A model without
        the class-agnostic mask has no active frames, and so neither ``precision`` nor ``recall``.

    Raises:
        ValueError: the model has no soft mask, or the truth is that of another split.
    """
    if model.soft_mask is None:
        raise ValueError("a model without soft mask has no masks to score")
    if truth.ids != tuple(dataset.ids):
        raise ValueError("the truth is that of other clips: create it with step_truth from the same data set")
    was_training = model.training
    model.eval()
    with moved(model):
        parts = list(_look(model, dataset, evaluation or EvalConfig()))
    model.train(was_training)
    active, weights = _joined([part[0] for part in parts]), _joined([part[1] for part in parts])
    positions = torch.cat([part[2] for part in parts])
    tables = [*_score_frames(active, truth), *_score_weights(weights, positions, truth)]
    return pd.concat(tables, ignore_index=True).dropna(subset="value")


def _joined(batches: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}


def _look(
    model: AdaTosk, dataset: ClipDataset, evaluation: EvalConfig
) -> Iterator[tuple[dict[str, Tensor], dict[str, Tensor], Tensor]]:
    """Batch by batch, in the data set's order: active frames, weights and positions of the visible patches."""
    config, device = model.config, next(model.parameters()).device
    for batch in make_loader(dataset, evaluation.batch_size, device=device):
        visible = clip_masks(batch["index"], config, 1, False, evaluation.seed)[0]
        positions = positions_of(visible, config.visible_patches)
        patches = patchify(model_input(batch, config.image_size, device), config.tubelet, config.patch_size)
        tokens, mask = model.look(patches, positions.to(device))
        mask = cast(SoftMask, mask)  # a model without one has been refused
        weights = _weights(mask, tokens, config.required_soft_mask.scaling)
        yield _active(mask, patches, positions, config), weights, positions


def _active(mask: SoftMask, patches: Tensor, positions: Tensor, config: ModelConfig) -> dict[str, Tensor]:
    """Active frames, bool ``(B, n_t)``: the model's, and those that pixel differences give by the same rule."""
    if mask.active is None:
        return {}
    differences = {
        "pixels, mean of visible patches": frame_differences(gather_patches(patches, positions.to(patches.device))),
        "pixels, mean of all patches": frame_differences(patches),
        "pixels, one by one": (patches[:, 1:] - patches[:, :-1]).abs().mean((2, 3)),
    }
    plain = {name: active_frames(values, config.required_soft_mask.top_k).cpu() for name, values in differences.items()}
    return {"active frames": mask.active.cpu(), **plain}


def _weights(mask: SoftMask, tokens: Tensor, scaling: Scaling) -> dict[str, Tensor]:
    """Weights ``(B, n_t, n_s)`` of the masks and of the semantic one's components (Table 3)."""
    weights = {"A": class_semantic_mask(tokens, None, mask.kept, "A", scaling)}
    if mask.scores is not None:
        weights["M"] = class_semantic_mask(tokens, mask.scores, mask.kept, "M", scaling)
    if mask.semantic is not None:
        weights["semantic"] = mask.semantic
    if mask.agnostic is not None:
        weights["agnostic"] = mask.agnostic.mean(-1)
    weights["final"] = mask.weights.mean(-1)
    return {name: values.float().cpu() for name, values in weights.items()}


def _score_frames(active: dict[str, Tensor], truth: StepTruth) -> Iterator[pd.DataFrame]:
    for source, frames in active.items():
        for target, moving in truth.moving.items():
            for score in (precision, recall):
                yield _table(score(frames, moving), truth, score.__name__, source, target, "all")


def _score_weights(weights: dict[str, Tensor], positions: Tensor, truth: StepTruth) -> Iterator[pd.DataFrame]:
    patches = truth.regions["face"].shape[2]
    shares = {**truth.regions, "expression shown": truth.shown[..., None].expand(-1, -1, patches).float()}
    steps = {"all": torch.ones_like(truth.shown), "expression": truth.shown}
    for target, when in TARGETS:
        share = gather_patches(shares[target][..., None], positions)[..., 0]  # (N, n_t, n_s)
        for source, values in weights.items():
            for score in (mass, pointing):
                yield _table(score(values, share, steps[when]), truth, score.__name__, source, target, when)


def _table(found: Score, truth: StepTruth, score: str, source: str, target: str, steps: str) -> pd.DataFrame:
    names = {"id": truth.ids, "label": truth.labels, "score": score, "source": source, "target": target, "steps": steps}
    return pd.DataFrame({**names, **{name: values.numpy() for name, values in found._asdict().items()}})


def summarise(scores: pd.DataFrame, by: Sequence[str] = ("score", "source", "target", "steps")) -> pd.DataFrame:
    """Means over clips of :func:`score_masks`, one row per group.

    Returns:
        ``value``, ``chance`` and ``best``; ``ratio``, the mean of value / chance, which is 1 for a random mask; its
        standard error ``error``; and the number of ``clips``.
    """
    grouped = scores.assign(ratio=scores["value"] / scores["chance"]).groupby(list(by), sort=False)
    table = grouped[["value", "chance", "best", "ratio"]].mean()
    return table.assign(error=grouped["ratio"].sem(), clips=grouped["id"].nunique())


@torch.inference_mode()
def whole_activation(model: AdaTosk, video: Tensor, masks: Sequence[Tensor]) -> Tensor:
    """A (Eq. 10) of every patch, assembled from complementary hard masks.

    Args:
        model: in evaluation mode.
        video: normalised clips, float ``(B, C, T, H, W)``.
        masks: bool ``(B, N_s)`` each, a partition of the patches.

    Returns:
        ``(B, n_t, N_s)``; 0 where no mask shows the patch.
    """
    config = model.config
    patches = patchify(video, config.tubelet, config.patch_size)
    whole = patches.new_zeros(patches.shape[:3])
    for visible in masks:
        positions = positions_of(visible, check_mask(visible, len(video), config.patches)).to(video.device)
        tokens, _ = model.encoder(patches, positions, None)
        whole.scatter_(2, positions[:, None].expand(-1, config.steps, -1), semantic_scores(tokens))
    return whole


def split_activation(model: AdaTosk, dataset: ClipDataset) -> Tensor:
    """:func:`whole_activation` of every clip of a split, ``(N, n_t, N_s)``, each clip scaled to [0, 1]."""
    evaluation, found = EvalConfig(), []
    with moved(model):
        device = next(model.parameters()).device
        for batch in make_loader(dataset, evaluation.batch_size, device=device):
            masks = clip_masks(batch["index"], model.config, 1, True, evaluation.seed)
            video = model_input(batch, model.config.image_size, device)
            found.append(whole_activation(model, video, masks).cpu())
    values = torch.cat(found)
    low, high = values.amin((1, 2), keepdim=True), values.amax((1, 2), keepdim=True)
    return (values - low) / (high - low)
