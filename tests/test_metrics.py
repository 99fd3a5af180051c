import pytest
import torch

from adatosk.metrics import majority, score

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
