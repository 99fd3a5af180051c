"""The field's two scores: UAR, the mean recall over classes, and WAR, the accuracy."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import pandas as pd
import torch
from torch import Tensor

MEAN, SPREAD, POOLED = "mean over folds", "standard deviation over folds", "pooled predictions"


@dataclass(frozen=True)
class Scores:
    """Scores of one split, in percent.

    Attributes:
        uar: unweighted average recall, over the classes that occur in the split.
        war: weighted average recall, which is accuracy.
        recalls: recall by class name; ``None`` for a class without clips in the split.
        confusion: ``confusion[i][j]`` clips of class i predicted as class j, in the order of ``recalls``.
        clips: number of clips.
    """

    uar: float
    war: float
    recalls: dict[str, float | None]
    confusion: list[list[int]]
    clips: int

    def as_dict(self) -> dict:
        """Plain types, for JSON."""
        return asdict(self)


def score(predicted: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Scores:
    """Score predicted class indices ``(N,)`` against ``labels`` ``(N,)``.

    Raises:
        ValueError: when there are no clips, or the two differ in length.
    """
    if len(labels) == 0 or len(predicted) != len(labels):
        raise ValueError(f"cannot score {len(predicted)} predictions against {len(labels)} labels")
    # Imported here because torchmetrics imports transformers and torchvision, which takes seconds.
    from torchmetrics.functional.classification import (
        multiclass_accuracy,
        multiclass_confusion_matrix,
        multiclass_recall,
    )

    count = len(classes)
    confusion = multiclass_confusion_matrix(predicted, labels, count)
    present = confusion.sum(dim=1) > 0
    # torchmetrics' macro average counts a class that is predicted but absent as 0; the field averages over present
    # classes.
    recalls = multiclass_recall(predicted, labels, count, average="none").double()
    return Scores(
        uar=100 * float(recalls[present].mean()),
        war=100 * float(multiclass_accuracy(predicted, labels, count, average="micro")),
        recalls={
            name: 100 * float(recall) if there else None
            for name, recall, there in zip(classes, recalls, present, strict=True)
        },
        confusion=confusion.tolist(),
        clips=len(labels),
    )


def majority(labels: Tensor, classes: tuple[str, ...]) -> Scores:
    """Scores of always predicting the most frequent class, the baseline that any model has to beat."""
    return score(torch.full_like(labels, int(labels.bincount(minlength=len(classes)).argmax())), labels, classes)


def score_folds(
    predicted: Mapping[int, Tensor], labels: Mapping[int, Tensor], classes: tuple[str, ...]
) -> tuple[pd.DataFrame, dict[int, Scores]]:
    """Score each test fold, and all folds together.

    Args:
        predicted, labels: by fold, the class indices of its clips, int64 ``(N,)``.
        classes: class names, in the order of the indices.

    Returns:
        a table with the columns ``clips``, ``uar`` and ``war`` (percent) and the rows ``fold k``, ``mean over folds``,
        ``standard deviation over folds`` (NA for one fold) and ``pooled predictions``; and the scores by fold. Mean and
        pooled scores differ: the mean weights all folds equally, pooling weights all clips of a class equally.

    Raises:
        ValueError: the predictions and the labels are of different folds.
    """
    if not predicted or predicted.keys() != labels.keys():
        raise ValueError(f"predictions of folds {sorted(predicted)} do not match labels of folds {sorted(labels)}")
    folds = sorted(predicted)
    scores = {fold: score(predicted[fold], labels[fold], classes) for fold in folds}
    rows = {f"fold {fold}": (scores[fold].clips, scores[fold].uar, scores[fold].war) for fold in folds}
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["clips", "uar", "war"])
    means, spreads = table[["uar", "war"]].mean(), table[["uar", "war"]].std()
    whole = score(torch.cat([predicted[fold] for fold in folds]), torch.cat([labels[fold] for fold in folds]), classes)
    table.loc[MEAN] = (whole.clips, means["uar"], means["war"])
    table.loc[SPREAD] = (whole.clips, spreads["uar"], spreads["war"])
    table.loc[POOLED] = (whole.clips, whole.uar, whole.war)
    return table.astype({"clips": int}), scores
