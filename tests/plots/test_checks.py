import numpy as np
import pandas as pd
import pytest

from adatosk.manifests import Manifest
from adatosk.plots.checks import MOST_SIZES, check_report
from adatosk.video.checks import Report

CLASSES = ("happy", "sad", "fear")


def example(folds: bool, problems: dict[int, str], count: int = 30) -> tuple[Report, Manifest]:
    """A report of ``count`` clips, every third one of each class, with problems by row."""
    ids = [str(number) for number in range(count)]
    clips = pd.DataFrame({"path": ids, "id": ids, "label": [CLASSES[number % 3] for number in range(count)]})
    clips["fold" if folds else "split"] = [
        number % 2 + 1 if folds else ("train", "test")[number % 2] for number in range(count)
    ]
    table = pd.DataFrame({"id": ids, "problem": [problems.get(number, "") for number in range(count)]})
    for column, values in {"frames": np.arange(count) + 40, "width": np.arange(count) // 2 + 90, "height": 90}.items():
        table[column] = pd.array(np.broadcast_to(values, count), dtype="Int64")
    table.loc[list(problems), ["frames", "width", "height"]] = pd.NA
    return Report("own", table), Manifest("own", "1", CLASSES, clips)


def widths(ax) -> list[float]:
    return [bar.get_width() for bar in ax.containers[0]]


@pytest.mark.parametrize("folds", [False, True])
def test_check_report_shows_what_was_found(folds):
    report, manifest = example(
        folds, {1: "a: no such video file", 4: "b: no such video file", 7: "c: cut short: 1 of 2"}
    )
    classes, lengths, sizes, problems = check_report(report, manifest).axes
    assert [text.get_text() for text in classes.get_yticklabels()] == list(CLASSES)
    assert sum(bar.get_width() for bars in classes.containers for bar in bars) == 30
    assert classes.get_legend().get_title().get_text() == ("test fold" if folds else "split")
    assert sum(bar.get_height() for bar in lengths.patches) == 27
    assert len(widths(sizes)) == MOST_SIZES and widths(sizes) == sorted(widths(sizes), reverse=True)
    assert widths(problems) == [2, 1]
    assert [text.get_text() for text in problems.get_yticklabels()] == ["missing", "cut short"]
    assert problems.get_title() == "problems: 3 of 30 clips"


def test_empty_panels_say_so():
    report, manifest = example(False, {})
    assert check_report(report, manifest).axes[3].texts[0].get_text() == "none"
    report, manifest = example(False, dict.fromkeys(range(30), "all: no such video file"))
    _, lengths, sizes, problems = check_report(report, manifest).axes
    assert lengths.texts[0].get_text() == sizes.texts[0].get_text() == "no clip is fine"
    assert widths(problems) == [30]
