import re

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import cbook
from matplotlib.figure import Figure
from matplotlib.text import Text

from adatosk import create_model, plots
from adatosk.clips import normalise
from adatosk.cost.operations import table2_cost
from adatosk.losses import reconstruction_target
from adatosk.model import Output
from adatosk.plots import style
from adatosk.synthetic import BENCHMARKS, ground_truth, sample_script
from adatosk.tokens import tube_mask

CLASSES = ("happy", "sad", "neutral")


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def output(clip) -> tuple[Output, torch.Tensor]:
    torch.manual_seed(0)
    video = normalise(torch.from_numpy(clip).permute(3, 0, 1, 2)[None])
    with torch.inference_mode():
        return create_model("adatosk_tiny").eval()(
            video, tube_mask(1, 16, 0.4, torch.Generator().manual_seed(0))
        ), video


def draw(figure: Figure) -> Figure:
    """Draws it whole, so that what only fails when drawn fails here; nothing is left open, too wide or too small."""
    figure.draw_without_rendering()
    assert not plt.get_fignums()
    assert figure.get_figwidth() <= style.WIDEST
    texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert all(text.get_fontsize() >= style.SMALLEST for text in texts), [text.get_text() for text in texts]
    # Matplotlib shrinks exponents and indices.
    assert not [text.get_text() for text in texts if re.search(r"\$[^$]*[_^][^$]*\$", text.get_text())]
    return figure


def test_pictures_shows_each_image_in_its_row(clip):
    figure = draw(plots.pictures({"a": clip[:3], "b": clip[3:5]}, titles=["1", "2", "3"]))
    shown = [ax for ax in figure.axes if ax.images]
    assert [np.array_equal(ax.images[0].get_array(), frame) for ax, frame in zip(shown, clip, strict=False)] == [
        True
    ] * 5
    assert [ax.get_title() for ax in shown] == ["1", "2", "3", "", ""]
    assert [ax.get_ylabel() for ax in shown if ax.get_ylabel()] == ["a", "b"]


def test_hidden_patches_are_grey_and_visible_ones_untouched(clip):
    visible = torch.zeros(16, dtype=torch.bool)
    visible[5] = True  # second row, second column of patches of 8 pixels
    shown = plots.show_visible(clip, visible)
    assert np.array_equal(shown[:, 8:16, 8:16], clip[:, 8:16, 8:16])
    shown[:, 8:16, 8:16] = 237
    assert (shown == 237).all()


def test_masks_over_frames_blackens_excluded_and_frames_active_ones(clip, output):
    found, _ = output
    mask, visible = found.soft_mask, found.visible[0]
    figure = draw(plots.masks_over_frames(clip, visible, mask, torch.rand(8, 16)))
    rows = np.array(figure.axes).reshape(6, 8)
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert legend == ["excluded", "hidden", "active frame"]
    positions = visible.nonzero().flatten().tolist()
    for step in range(8):
        final = rows[5, step].images[0].get_array()
        black = [bool((final[8 * (p // 4) + 4, 8 * (p % 4) + 4] == 0).all()) for p in positions]
        assert black == (~mask.kept[0, step]).tolist()
        hatched = [len(one.get_paths()) for one in rows[5, step].collections]
        assert sum(hatched) == int((~mask.kept[0, step]).sum())
        assert rows[4, step].spines["left"].get_visible() == bool(mask.active[0, step])
        assert np.array_equal(rows[0, step].images[0].get_array(), clip[2 * step + 1])
    assert len(plots.masks_over_frames(clip, visible, mask).axes) == 5 * 8


def test_the_brief_figure_shows_some_steps_with_their_own_masks(clip, output):
    mask, visible = output[0].soft_mask, output[0].visible[0]
    rows = np.array(draw(plots.masks_in_brief(clip, visible, mask, columns=3)).axes).reshape(3, 3)
    whole = np.array(plots.masks_over_frames(clip, visible, mask).axes).reshape(5, 8)
    for column, step in enumerate((0, 4, 7)):
        frame, patches, final = (ax.images[0].get_array() for ax in rows[:, column])
        assert np.array_equal(frame, clip[2 * step + 1]) and rows[0, column].get_title() == str(2 * step + 2)
        for shown, row in ((patches, 1), (final, 4)):
            assert np.array_equal(shown, whole[row, step].images[0].get_array())
        hatched = sum(len(one.get_paths()) for one in rows[2, column].collections)
        assert hatched == int((~mask.kept[0, step]).sum())
        assert rows[2, column].spines["left"].get_visible() == bool(mask.active[0, step])


def test_tokens_over_time_masks_what_was_excluded(output):
    mask = output[0].soft_mask
    figure = draw(plots.tokens_over_time(mask.scores[0], mask.kept[0], "M"))
    shown = figure.axes[0].images[0].get_array()
    assert np.array_equal(shown.mask, ~mask.kept[0].numpy().T)
    assert shown.sum() == pytest.approx(8, abs=1e-4)  # M sums to 1 over each of the 8 steps


def test_frame_differences_colours_the_active_frames():
    active = torch.tensor([False, True, False, True])
    figure = draw(plots.frame_differences(torch.tensor([3.0, 1.0, 2.0]), active, np.array([0, 0.5, 1, 0.5])))
    bars = figure.axes[0].patches
    assert [bar.get_height() for bar in bars] == [3, 1, 2]
    assert [bar.get_facecolor()[:3] == plots.ORANGE for bar in bars] == [True, False, True]


def test_repaint_gives_back_the_clip_from_a_perfect_reconstruction(clip, output):
    found, video = output
    config = create_model("adatosk_tiny").config
    perfect = Output(found.logits, reconstruction_target(video, found.visible, config), found.visible, None)
    assert np.abs(plots.repaint(perfect, video, config)[0].astype(int) - clip).max() <= 1
    flat = Output(found.logits, torch.zeros_like(found.reconstruction), found.visible, None)
    assert np.abs(plots.repaint(flat, video, config)[0].astype(int) - clip).max() > 50


def test_confusions_are_in_percent_of_the_true_class():
    figure = draw(plots.confusions({"one": [[3, 1, 0], [0, 2, 0], [0, 0, 0]]}, CLASSES))
    assert [text.get_text() for text in figure.axes[0].texts] == ["75", "25", "0", "0", "100", "0", "0", "0", "0"]


@pytest.mark.parametrize("index", [2, 4], ids=["neutral", "surprise"])
def test_action_units_marks_onset_to_end_where_there_is_an_expression(index):
    config = BENCHMARKS["embedded-smoke"]
    script = sample_script(config, "train", index)
    figure = draw(plots.action_units(ground_truth(script, config), [1, 5, 9]))
    marks = [line.get_xdata()[0] for line in figure.axes[0].lines]
    phases = script.phases
    assert marks == ([] if phases is None else [phases.onset, *phases.apex, phases.offset])


def test_one_runs_accuracy_is_shown_above_guessing_without_a_legend():
    log = pd.DataFrame({"epoch": [4, 8, 12], "reconstruction_loss": 1, "classification_loss": 1})
    log["test_war_views_1"] = [44.4, 44.4, 47.2]
    first, _, war = draw(plots.learning_curves({"mine": log}, chance=33.3)).axes
    assert first.get_legend() is None and [text.get_text() for text in war.texts] == ["guessing"]
    assert 30 < war.get_ylim()[0] < 33.3
    low = log.assign(test_war_views_1=14.3)
    assert draw(plots.learning_curves({"mine": low}, chance=33.3)).axes[2].get_ylim()[0] < 14.3


def test_the_other_figures_draw():
    log = pd.DataFrame({"epoch": [1, 2], "reconstruction_loss": [1, 0.9], "classification_loss": [2, 1.5]})
    log["test_war_views_1"] = [float("nan"), 30.0]
    clips = pd.DataFrame({"label": ["happy", "sad"], "split": ["train", "test"]})
    scores = pd.DataFrame([[50.0, 20.0, 10.0]], index=["with"], columns=CLASSES)
    draw(plots.learning_curves({"with": log, "without": log}))
    draw(plots.class_balance(clips, CLASSES))
    draw(plots.recalls(scores))
    draw(plots.sampling({"a": (20, [0, 4, 8])}))
    moves = pd.DataFrame([dict.fromkeys(("largest", "four_largest", "moving", "above_middle", "range"), 0.5)] * 2)
    draw(plots.motion({"sparse": np.eye(20, 15)}, moves.set_axis(["sparse", "real"])))
    draw(plots.probabilities(dict(zip(CLASSES, (0.5, 0.3, 0.2), strict=True))))
    draw(plots.transition(torch.eye(4)))
    draw(plots.gate_weights(torch.rand(2, 32)))


def test_parts_of_the_cost_are_named_over_the_first_bar_and_tiny_ones_are_the_rest():
    parts = pd.DataFrame({"embedding": [0.5, 0.1], "MLP": [40.0, 30.0], "head": [0.1, 0.1]}, index=["a", "b"])
    (ax,) = draw(plots.macs_by_part(parts)).axes
    assert [text.get_text() for text in ax.texts] == ["MLP", "rest", "40.6", "30.2"]
    widths = [bar.get_width() for bars in ax.containers for bar in bars]
    assert widths == pytest.approx([40, 30, 0.6, 0.2])
    assert ax.patches[2].get_x() == 40 and [text.get_text() for text in ax.get_yticklabels()] == ["a", "b"]


def test_costs_of_table_2_are_named_at_our_last_points():
    costs = table2_cost()
    left, right = draw(plots.table2_costs(costs)).axes
    ends = {text.get_text(): text.xy for text in left.texts}
    assert ends["25% hidden"] == (6, costs.query("mask_ratio == 0.25 and r == 6")["gmacs"].item())
    assert ends["70% hidden"] == (2, costs.query("mask_ratio == 0.7 and r == 2")["gmacs"].item()) and len(ends) == 3
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["ours", "paper"]


ODD = (r"$\frac$", "$x$", "a$b", r"\$y$", "_x", "{%}^_")


def test_class_names_are_drawn_as_they_are(clip):
    """Two dollar signs make a formula of what is between them, which stops a figure where it is none."""
    clips = pd.DataFrame({"label": ODD * 2, "split": ["train"] * 6 + ["test"] * 6})
    table = pd.DataFrame([[50.0] * 6, [20.0] * 6], index=["$with$", "_without"], columns=ODD)
    legend = draw(plots.recalls(table)).axes[0].get_legend()
    assert len(legend.texts) == 2
    figures = [
        plots.class_balance(clips, ODD),
        plots.confusions({"one": np.eye(6)}, ODD),
        plots.probabilities(dict.fromkeys(ODD, 1 / 6)),
        plots.pictures(dict.fromkeys(ODD, clip[:2]), titles=["$\\a$", "b"]),
        plots.sampling(dict.fromkeys(ODD, (20, [0, 4]))),
    ]
    for figure in figures:
        (ax,) = draw(figure).axes[:1]
        for text in [*ax.get_xticklabels(), *ax.get_yticklabels(), ax.title, ax.yaxis.label]:
            assert not cbook.is_math_text(text.get_text()), text


def test_the_colours_are_seaborns():
    import seaborn as sns

    palette = sns.color_palette("colorblind")
    assert [palette[place] for place in (0, 1, 2, 4)] == [style.BLUE, style.ORANGE, style.GREEN, style.PURPLE]


def test_style_is_set_by_the_call_and_not_by_the_import():
    before = plt.rcParams["figure.dpi"]
    with plt.rc_context():
        plots.use_style()
        assert plt.rcParams["figure.dpi"] == style.SCREEN_DPI
    assert plt.rcParams["figure.dpi"] == before
