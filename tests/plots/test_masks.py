import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.patches import ConnectionPatch, Rectangle

from adatosk import create_model
from adatosk.clips import normalise
from adatosk.experiments.mask_scores import TARGETS
from adatosk.plots import ORANGE
from adatosk.plots import masks as plots_masks
from adatosk.tokens import tube_mask

CLASSES = ("happy", "sad")
SIDE, GRID, PATCH = 32, 4, 8


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, SIDE, SIDE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def output(frames):
    torch.manual_seed(0)
    video = normalise(torch.from_numpy(frames).permute(3, 0, 1, 2)[None])
    with torch.inference_mode():
        visible = tube_mask(1, GRID**2, 0.4, torch.Generator().manual_seed(0))
        return create_model("adatosk_tiny").eval()(video, visible)


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    """Two models, two classes of two clips each; values are told apart by their decimals."""
    rows = []
    for model, lift in (("trained", 0.2), ("untrained", 0.0)):
        for clip, label in enumerate(("happy", "happy", "sad", "sad")):
            known = {"model": model, "id": str(clip), "label": label, "chance": 0.4, "best": 0.8}
            for score in ("precision", "recall"):
                named = {"score": score, "source": "active frames", "frames": model, "target": "expression"}
                rows.append({**known, **named, "steps": "all", "value": 0.4 + lift})
            for score in ("mass", "pointing"):
                for source, more in (("semantic", 0.0), ("A", 0.1)):
                    named = {"score": score, "source": source, "frames": "", "target": "moving regions"}
                    rows.append({**known, **named, "steps": "all", "value": 0.4 + lift + more})
                    rows.append({**known, **named, "steps": "expression", "value": 9.0})
    return pd.DataFrame(rows)


def draw(figure):
    """Draws it whole, so that what only fails when drawn fails here; and nothing may be left open."""
    figure.draw_without_rendering()
    assert not plt.get_fignums()
    return figure


def pixel(ax, place: int) -> np.ndarray:
    """The middle of a patch of the image that an axis shows."""
    return ax.images[0].get_array()[PATCH * (place // GRID) + 4, PATCH * (place % GRID) + 4]


class TestDistinctTokens:
    def test_in_the_first_step_all_are_new_and_then_what_differs_from_the_last_new_one(self):
        values = torch.tensor([[0.0, 0.0], [0.0, 20.0], [0.0, 19.0], [20.0, 0.0]])
        found = plots_masks.distinct_tokens(values[..., None].expand(-1, -1, 5), threshold=10)
        assert found.tolist() == [[True, True], [False, True], [False, False], [True, True]]

    def test_a_slow_change_is_found_once_it_has_added_up(self):
        values = 4.0 * torch.arange(8)[:, None, None].expand(-1, 1, 3)
        found = plots_masks.distinct_tokens(values, threshold=10)[:, 0]
        assert found.tolist() == [True, False, False, True, False, False, True, False]

    def test_it_is_the_mean_over_the_pixels_that_counts(self):
        change = torch.tensor([[[0.0, 0.0, 0.0]], [[31.0, 0.0, 0.0]], [[31.0, 31.0, 0.0]]])
        assert plots_masks.distinct_tokens(change, threshold=10)[:, 0].tolist() == [True, True, True]
        assert plots_masks.distinct_tokens(change, threshold=11)[:, 0].tolist() == [True, False, True]


def test_redundancy_greys_what_repeats_and_joins_what_is_new(frames):
    visible = torch.zeros(GRID**2, dtype=torch.bool)
    visible[[2, 9]] = True
    distinct = torch.zeros(8, 2, dtype=torch.bool)
    distinct[0], distinct[3, 0], distinct[6, 0], distinct[5, 1] = True, True, True, True
    figure = draw(plots_masks.redundancy(frames, visible, distinct))
    rows = np.array(figure.axes).reshape(3, 8)
    for step in range(8):
        assert np.array_equal(rows[0, step].images[0].get_array(), frames[2 * step + 1])
        for token, place in enumerate((2, 9)):
            true, shown = pixel(rows[0, step], place), pixel(rows[2, step], place)
            assert np.array_equal(true, shown) == bool(distinct[step, token])
            assert distinct[step, token] or len(set(shown.tolist())) == 1
        boxes = [patch for patch in rows[2, step].patches if isinstance(patch, Rectangle)]
        assert len(boxes) == int(distinct[step].sum())
        assert rows[2, step].get_xlabel() == f"{int(distinct[step].sum())} new"
    lines = [artist for artist in figure.artists if isinstance(artist, ConnectionPatch)]
    ends = [[list(rows[2]).index(ax) for ax in (line.axesA, line.axesB)] for line in lines]
    assert sorted(ends) == [[0, 3], [0, 5], [3, 6]]


class TestBothMasks:
    def test_its_five_rows_are_the_papers(self, frames, output):
        figure = draw(plots_masks.both_masks(frames, output.visible[0], output.soft_mask, torch.rand(8, 16)))
        names = [ax.get_ylabel().replace("\n", " ") for ax in figure.axes if ax.get_ylabel()]
        assert names == ["frames", "class-semantic activation", "visible patches", "CS mask", "CA mask"]
        assert [text.get_text() for text in figure.legends[0].get_texts()] == ["excluded", "hidden", "active frame"]
        scale = [text.get_text() for text in figure.axes[-1].get_xticklabels()]
        assert scale == ["lowest", "80 %", "90 %", "highest"]

    def test_excluded_tokens_are_black_and_the_highest_red(self, frames, output):
        mask, visible = output.soft_mask, output.visible[0]
        white = np.full_like(frames, 255)
        figure = plots_masks.both_masks(white, visible, mask, torch.rand(8, 16))
        rows = np.array(figure.axes[:40]).reshape(5, 8)
        places = visible.nonzero().flatten().tolist()
        for row, weights in ((3, mask.semantic[0]), (4, mask.agnostic[0].mean(-1))):
            top = (weights == weights[mask.kept[0]].max()).nonzero()[0].tolist()
            red = pixel(rows[row, top[0]], places[top[1]])
            assert red[0] > 0.8
            assert red[0] > 3 * max(red[1:])
            for step in range(8):
                black = [bool((pixel(rows[row, step], place) == 0).all()) for place in places]
                assert black == (~mask.kept[0, step]).tolist()

    def test_active_frames_have_an_orange_border(self, frames, output):
        figure = plots_masks.both_masks(frames, output.visible[0], output.soft_mask, torch.rand(8, 16))
        last = np.array(figure.axes[:40]).reshape(5, 8)[4]
        assert [ax.spines["left"].get_visible() for ax in last] == output.soft_mask.active[0].tolist()
        assert all(
            ax.spines["top"].get_edgecolor()[:3] == ORANGE
            for ax, active in zip(last, output.soft_mask.active[0].tolist(), strict=True)
            if active
        )

    def test_a_fifth_of_the_colours_is_yellow_or_red(self):
        colours = plots_masks.ESSENTIAL(np.linspace(0, 1, 1000))[:, :3]
        warm = (colours[:, 0] > colours[:, 2]).mean()
        red = (np.abs(colours - plots_masks.RED).max(axis=1) < 1e-6).mean()
        assert warm == pytest.approx(0.2, abs=0.01)
        assert red == pytest.approx(0.1, abs=0.01)


def test_activation_by_class_has_a_row_a_map_and_a_column_a_class(frames):
    examples = dict(zip(CLASSES, frames, strict=False))
    bright = torch.zeros(16)
    bright[5] = 1
    maps = {"one": {"happy": bright, "sad": 1 - bright}, "two": {"happy": torch.rand(16), "sad": torch.rand(16)}}
    figure = draw(plots_masks.activation_by_class(examples, maps))
    rows = np.array(figure.axes[:6]).reshape(3, 2)
    assert [text.get_text() for text in figure.axes[-1].get_xticklabels()] == ["lowest of its picture", "highest"]
    assert [ax.get_title() for ax in rows[0]] == list(CLASSES)
    assert [ax.get_ylabel() for ax in rows[:, 0]] == ["example", "one", "two"]
    assert np.array_equal(rows[0, 1].images[0].get_array(), frames[1])
    assert pixel(rows[1, 0], 5).sum() > 2 * pixel(rows[1, 0], 6).sum()
    assert pixel(rows[1, 1], 5).sum() < pixel(rows[1, 1], 6).sum() / 2


def test_temporal_scores_shows_means_between_chance_and_best(scores):
    figure = draw(plots_masks.temporal_scores(scores[scores["score"].isin(["precision", "recall"])]))
    for ax, name in zip(figure.axes, ("precision", "recall"), strict=True):
        assert ax.get_xlabel() == name
        assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.6, 0.4])
        straight = [line.get_xdata()[0] for line in ax.lines if line.get_label() in ("chance", "best possible")]
        assert straight == pytest.approx([0.4, 0.8])
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["trained", "untrained"]


def test_spatial_scores_has_a_row_a_source_and_counts_all_steps_once(scores):
    figure = draw(plots_masks.spatial_scores(scores, {"semantic": "CS", "A": "A alone"}, CLASSES))
    rows = np.array(figure.axes).reshape(2, 2)
    assert [ax.get_ylabel() for ax in rows[:, 0]] == ["CS", "A alone"]
    heights = [[round(bar.get_height(), 6) for bar in ax.patches if bar.get_width()] for ax in rows.flat]
    assert heights[0][:4] == [1.5, 1.5, 1.0, 1.0]  # mass ratio, the trained model's classes first
    assert heights[1][:4] == [0.6, 0.6, 0.4, 0.4]
    assert heights[3][:4] == [0.7, 0.7, 0.5, 0.5]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["trained", "untrained"]


def test_scores_by_target_has_a_panel_a_target_and_a_dot_a_mask_and_model(scores):
    base = scores[scores["score"].isin(["mass", "pointing"]) & (scores["steps"] == "all")]
    every = pd.concat([base.assign(target=target, steps=steps) for target, steps in TARGETS])
    figure = draw(plots_masks.scores_by_target(every, {"semantic": "CS mask", "A": "A alone"}))
    panels = np.array(figure.axes).reshape(2, 4)
    assert [text.get_text() for text in panels[0, 0].get_yticklabels()] == ["CS mask", "A alone"]
    assert panels[0, 1].get_title() == "moving regions,\nin the steps of the expression"
    for line, (trained, untrained) in zip(panels, (([1.5, 1.75], [1.0, 1.25]), ([0.6, 0.7], [0.4, 0.5])), strict=True):
        for ax in line:
            dots = [found.get_xdata() for found in ax.lines if found.get_marker() in ("o", "s")]
            assert [list(xs) for xs in dots[:2]] == [pytest.approx(trained), pytest.approx(untrained)]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["trained", "untrained"]
