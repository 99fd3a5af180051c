import pytest
import torch

from adatosk.metrics import MEAN, POOLED, SPREAD, score_folds

CLASSES = ("happy", "sad")


def test_mean_and_pooled_scores_are_both_named_and_differ():
    labels = {1: torch.tensor([0, 0, 0, 1]), 2: torch.tensor([0, 1, 1, 1, 1, 1])}
    predicted = {1: torch.tensor([0, 0, 0, 0]), 2: torch.tensor([1, 1, 1, 1, 1, 0])}
    table, scores = score_folds(predicted, labels, CLASSES)
    # Recalls: fold 1 has 3/3 and 0/1, fold 2 has 0/1 and 4/5; pooled 3/4 and 4/6.
    assert table.loc["fold 1", "uar"] == pytest.approx(50) and table.loc["fold 1", "war"] == pytest.approx(75)
    assert table.loc["fold 2", "uar"] == pytest.approx(40) and table.loc["fold 2", "war"] == pytest.approx(400 / 6)
    assert table.loc[MEAN, "uar"] == pytest.approx(45)
    assert table.loc[MEAN, "war"] == pytest.approx((75 + 400 / 6) / 2)
    assert table.loc[POOLED, "uar"] == pytest.approx(100 * (3 / 4 + 4 / 6) / 2)
    assert table.loc[POOLED, "war"] == pytest.approx(70)
    assert table.loc[SPREAD, "uar"] == pytest.approx(50**0.5)
    assert list(table["clips"]) == [4, 6, 10, 10, 10] and scores[2].clips == 6


def test_other_folds_are_refused():
    with pytest.raises(ValueError, match=r"predictions of folds \[1\] do not match labels of folds \[2\]"):
        score_folds({1: torch.tensor([0])}, {2: torch.tensor([0])}, CLASSES)
    with pytest.raises(ValueError, match="do not match"):
        score_folds({}, {}, CLASSES)
