"""Scores of a cross-validation: the mean over folds, as the field reports it, and those of the pooled predictions."""

from collections.abc import Mapping

import pandas as pd
import torch
from torch import Tensor

from adatosk.metrics import Scores, score

MEAN, SPREAD, POOLED = "mean over folds", "standard deviation over folds", "pooled predictions"


def score_folds(
    predicted: Mapping[int, Tensor], labels: Mapping[int, Tensor], classes: tuple[str, ...]
) -> tuple[pd.DataFrame, dict[int, Scores]]:
    """Score each test fold, and all of them together.

    Args:
        predicted, labels: class indices int64 ``(clips of the fold,)`` by fold.
        classes: names, whose places are the indices.

    Returns:
        a table with the columns ``clips``, ``uar`` and ``war`` (percent) and the rows ``fold k``, ``mean over folds``,
        ``standard deviation over folds`` (NA for one fold) and ``pooled predictions``; and the scores by fold. Mean and
        pooled differ: the mean gives each fold the same weight, pooling gives it to each clip of a class.

    Raises:
        ValueError: the two do not have the same folds.
    """
    if not predicted or predicted.keys() != labels.keys():
        raise ValueError(f"predictions of folds {sorted(predicted)} do not fit labels of folds {sorted(labels)}")
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
