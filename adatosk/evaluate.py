"""The test protocol: deterministic hard masks per clip, one or several views, scores for each protocol."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import Tensor

from adatosk.clips import model_input
from adatosk.config import EvalConfig, ModelConfig
from adatosk.metrics import Scores, score
from adatosk.model import AdaTosk
from adatosk.tokens import complementary_masks, tube_mask
from adatosk.utils import seeds

if TYPE_CHECKING:  # importing it takes seconds, and only training has one
    from accelerate import Accelerator


@dataclass(frozen=True)
class Predictions:
    """Logits of every clip of a split under each protocol, in ascending clip index.

    Attributes:
        logits: protocol name (``views_1``, ``views_8``, ``complementary``) to ``(N, classes)``.
        labels: ``(N,)``.
        indices: ``(N,)``, clip indices in the data set.
    """

    logits: dict[str, Tensor]
    labels: Tensor
    indices: Tensor

    def scores(self, classes: tuple[str, ...]) -> dict[str, Scores]:
        """Scores by protocol."""
        return {name: score(logits.argmax(dim=1), self.labels, classes) for name, logits in self.logits.items()}

    def table(self, ids: Iterable[str], classes: tuple[str, ...]) -> pd.DataFrame:
        """One row per clip: ``id``, ``label`` and, in a column named after each protocol, the predicted class."""
        named = {"label": self.labels} | {name: logits.argmax(dim=1) for name, logits in self.logits.items()}
        columns = {name: [classes[place] for place in places.tolist()] for name, places in named.items()}
        return pd.DataFrame({"id": list(ids), **columns})


def clip_masks(indices: Tensor, model: ModelConfig, views: int, complementary: bool, seed: int) -> list[Tensor]:
    """Hard masks that depend only on the clip and the seed, not on the batch.

    Args:
        indices: clip indices in the data set, ``(B,)``.
        views: number of random masks; ignored with ``complementary``, which gives one partition.

    Returns:
        one bool ``(B, N_s)`` per view.
    """
    rows = []
    for index in indices.tolist():
        generator = seeds.generator(seed, index)
        if complementary:
            rows.append(complementary_masks(1, model.patches, model.mask_ratio, generator))
        else:
            rows.append([tube_mask(1, model.patches, model.mask_ratio, generator) for _ in range(views)])
    return [torch.cat(view) for view in zip(*rows, strict=True)]


def _protocols(evaluation: EvalConfig) -> dict[str, tuple[int, bool]]:
    protocols = {f"views_{views}": (views, False) for views in evaluation.views}
    return protocols | ({"complementary": (1, True)} if evaluation.complementary else {})


@torch.inference_mode()
def predict_split(
    model: AdaTosk, batches: Iterable[dict], evaluation: EvalConfig, accelerator: "Accelerator | None" = None
) -> Predictions:
    """Classify every clip of a loader under each protocol of ``evaluation``.

    Args:
        model: in any mode; it is switched to evaluation mode and back.
        batches: dicts with clips as :func:`adatosk.clips.model_input` takes them, ``label`` and ``index``.
        accelerator: sets device, precision and processes; by default one process on the model's device.
    """
    device = next(model.parameters()).device if accelerator is None else accelerator.device
    gather = (lambda value: value) if accelerator is None else accelerator.gather_for_metrics
    if accelerator is not None and accelerator.num_processes == 1:
        gather = accelerator.gather  # what accelerate would leave out it counts by pieces of batches
    precision = nullcontext if accelerator is None else accelerator.autocast
    was_training = model.training
    model.eval()
    parts: list[dict[str, Tensor]] = []
    for batch in batches:
        video = model_input(batch, model.config.image_size, device)
        part = {"labels": batch["label"], "indices": batch["index"]}
        for name, (views, complementary) in _protocols(evaluation).items():
            masks = clip_masks(batch["index"], model.config, views, complementary, evaluation.seed)
            with precision():
                part[name] = model.classify_masks(video, masks).float()
        parts.append({key: gather(value).cpu() for key, value in part.items()})
    model.train(was_training)
    whole = {key: torch.cat([part[key] for part in parts]) for key in parts[0]}
    order = whole["indices"].argsort()
    logits = {name: whole[name][order] for name in _protocols(evaluation)}
    return Predictions(logits, whole["labels"][order], whole["indices"][order])
