"""Lifelike clips move as real faces do, within stated bounds; the measure itself against a plain loop."""

import numpy as np
import pandas as pd
import pytest

from adatosk.synthetic import BENCHMARKS, BenchmarkConfig, ground_truth, render, sample_script
from adatosk.synthetic.action_units import CLASS_UNITS, CLASSES_11, UNITS
from adatosk.synthetic.dynamics import REAL, REAL_BY_LABEL, dynamics
from adatosk.synthetic.lifelike import SPEECH
from adatosk.video import frame_indices

LIFELIKE = BENCHMARKS["embedded-demo-lifelike"]
SPARSE = BENCHMARKS["embedded-demo"]
# How far the means over clips may be from the real ones.
BOUNDS = pd.Series(
    {"largest": 0.02, "four_largest": 0.02, "moving": 0.25, "range": 0.16, "above_middle": 0.05, "frames": 6}
)
BOUNDS_BY_LABEL = pd.Series({"range": 0.25, "above_middle": 0.12})


def of(config, count=350, split="train"):
    return dynamics(sample_script(config, split, index) for index in range(count))


def test_lifelike_clips_move_as_real_faces_do():
    off = (of(LIFELIKE).drop(columns="label").mean() - REAL).abs()
    assert (off < BOUNDS).all(), off


def test_each_label_moves_as_far_and_as_long_as_on_real_faces():
    by_label = of(LIFELIKE, 700).groupby("label")[BOUNDS_BY_LABEL.index].mean()
    off = (by_label - REAL_BY_LABEL).abs()
    assert (off < BOUNDS_BY_LABEL).all(axis=None), off


def test_sparse_clips_do_not():
    off = (of(SPARSE).drop(columns="label").mean() - REAL).abs()
    assert (off > BOUNDS).all(), off


def test_figures_of_a_clip_equal_a_plain_loop():
    script = sample_script(LIFELIKE, "test", 1)
    units, length = script.motion.action_units.tolist(), script.frames
    smooth = []
    for frame in range(length):
        near = [units[min(max(frame + shift, 0), length - 1)] for shift in (-2, -1, 0, 1, 2)]
        smooth.append([sum(values) / 5 for values in zip(*near, strict=True)])
    picked = [smooth[index] for index in frame_indices(length, 16).tolist()]
    steps = [[(a + b) / 2 for a, b in zip(picked[2 * t], picked[2 * t + 1], strict=True)] for t in range(8)]
    change = [sum(abs(a - b) for a, b in zip(steps[t], steps[t + 1], strict=True)) for t in range(7)]
    summed = [sum(frame) for frame in smooth]
    middle = (max(summed) + min(summed)) / 2
    (row,) = dynamics([script]).to_dict("records")
    assert row == {
        "label": script.label,
        "largest": pytest.approx(max(change) / sum(change)),
        "four_largest": pytest.approx(sum(sorted(change)[-4:]) / sum(change)),
        "moving": sum(value > max(change) / 4 for value in change),
        "range": pytest.approx(max(summed) - min(summed)),
        "above_middle": pytest.approx(sum(value > middle for value in summed) / length),
        "frames": length,
    }


def test_a_face_that_rests_has_no_change_to_share():
    still = BenchmarkConfig(name="still", classes=("neutral",), talking=0, distractor_intensity=(0, 0))
    figures = dynamics([sample_script(still, "train", 0)]).drop(columns="label").loc[0]
    assert not figures.drop("frames").any()


def test_lifelike_scripts_speak_and_keep_the_expression_throughout():
    talking = [unit in SPEECH for unit in UNITS]
    for index in range(35):
        script = sample_script(LIFELIKE, "train", index)
        units = np.array([unit in CLASS_UNITS[script.label] for unit in UNITS])
        assert (script.expression[:, units] > 0).all() and not script.expression[:, ~units].any()
        assert script.speech[:, talking].max() > 0.1 and not script.speech[:, np.invert(talking)].any()
        assert script.phases is None and script.distractor is None and not script.motion.talk.any()
        assert script.motion.action_units.min() >= 0 and script.motion.action_units.max() <= 1
        truth = ground_truth(script, LIFELIKE)
        np.testing.assert_array_equal(truth.talk, script.speech.max(1).astype(np.float32))
        assert truth.active.all() == (script.label != "neutral") and truth.onset == -1
    quiet = LIFELIKE.model_copy(update={"talking": 0.0})
    assert not sample_script(quiet, "train", 0).speech.any()


def test_every_class_can_be_lifelike_and_the_same_script_gives_the_same_pixels():
    config = LIFELIKE.model_copy(update={"classes": CLASSES_11, "frames": (16, 16), "size": 48})
    scripts = [sample_script(config, "train", index) for index in range(11)]
    assert [script.label for script in scripts] == list(CLASSES_11)
    first, second = (render(sample_script(config, "train", 10), config) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_sparse_benchmarks_keep_their_digest_and_lifelike_ones_have_their_own():
    assert SPARSE.digest[:6] == "4728d5"  # leads the ids of the clips in the committed manifest
    assert SPARSE.model_copy(update={"motion": "lifelike"}).digest != SPARSE.digest
