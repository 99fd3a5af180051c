import pytest
import torch

from adatosk.metrics import MEAN, POOLED, SPREAD, majority, score, score_folds

CLASSES = ("happy", "sad", "neutral")


def test_scores_equal_a_count_by_hand():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
    predicted = torch.tensor([0, 0, 0, 1, 1, 0, 2, 2, 1, 0])
    found = score(predicted, labels, CLASSES)
    assert found.recalls == pytest.approx({"happy": 75, "sad": 50, "neutral": 50})
    assert found.uar == pytest.approx((75 + 50 + 50) / 3)
    assert found.war == pytest.approx(60)
    assert found.confusion == [[3, 1, 0], [1, 1, 0], [1, 1, 2]]
    assert found.clips == 10


def test_a_class_absent_from_the_split_does_not_lower_uar():
    found = score(torch.tensor([0, 0, 2]), torch.tensor([0, 0, 0]), CLASSES)
    assert found.recalls["sad"] is None
    assert found.uar == found.war == pytest.approx(200 / 3)


def test_majority_scores_chance_in_uar_whatever_the_balance():
    labels = torch.tensor([1] * 8 + [0, 2])
    found = majority(labels, CLASSES)
    assert found.war == pytest.approx(80)
    assert found.uar == pytest.approx(100 / 3)


@pytest.mark.parametrize("count", [0, 3])
def test_nothing_to_score_is_an_error(count):
    with pytest.raises(ValueError, match="cannot score"):
        score(torch.zeros(count).long(), torch.zeros(0).long(), CLASSES)


def test_mean_and_pooled_scores_are_both_named_and_differ():
    labels = {1: torch.tensor([0, 0, 0, 1]), 2: torch.tensor([0, 1, 1, 1, 1, 1])}
    predicted = {1: torch.tensor([0, 0, 0, 0]), 2: torch.tensor([1, 1, 1, 1, 1, 0])}
    table, scores = score_folds(predicted, labels, CLASSES[:2])
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
        score_folds({1: torch.tensor([0])}, {2: torch.tensor([0])}, CLASSES[:2])
    with pytest.raises(ValueError, match="do not match"):
        score_folds({}, {}, CLASSES[:2])
