import json

import matplotlib.pyplot as plt
import pandas as pd
import pytest
import torch
from matplotlib.text import Text

from adatosk import create_model
from adatosk.config import EvalConfig
from adatosk.cost.operations import hand_count, torch_count
from adatosk.experiments import grid, tables
from adatosk.experiments.cost_curve import (
    ALL_PATCHES,
    COLUMNS,
    DROPPED,
    MERGED,
    PARTITION,
    RANDOM,
    VIEWS,
    _fewer_tokens,
    _view_points,
    averaged,
    frontier,
    methods,
    reported_points,
    rival_table,
    training_tmacs,
    view_gmacs,
)
from adatosk.manifests import manifest_of
from adatosk.plots import cost_curve as plots_cost_curve
from adatosk.plots.style import use_style
from adatosk.presets import MODELS, PROFILES
from adatosk.tokens import complementary_masks
from adatosk.utils.project import PROJECT

SMOKE, TINY = PROFILES["smoke"], MODELS["adatosk_tiny"]


def write_points(results, base, repeats=3):
    """Runs of Table 2 and of the rivals whose WAR tells row and repeat; returns it by row."""
    expected = {}
    for place, row in enumerate(grid.table2(base) + grid.rivals(base)):
        for repeat, config in enumerate(grid.repeated(row, repeats)):
            folder = results / "runs" / config.run_id(manifest_of(config).digest)
            folder.mkdir(parents=True, exist_ok=True)
            scores = {"uar": 50.0 + place, "war": 60.0 + place + repeat}
            metrics = {"last": {"views_1": scores, "views_8": {"uar": 0, "war": 0}}, "train_seconds": 1.0}
            (folder / "metrics.json").write_text(json.dumps(metrics))
        expected[row.name] = 60.0 + place + (repeats - 1) / 2
    return expected


def batches(config):
    generator = torch.Generator().manual_seed(0)
    shape = (4, 3, config.frames, config.image_size, config.image_size)
    video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
    return [{"video": video, "label": torch.tensor([0, 1, 2, 3]), "index": torch.arange(4)}]


def test_reported_points_are_table_2_and_the_rivals_at_one_view(tmp_path):
    expected = write_points(tmp_path, SMOKE)
    points = reported_points(SMOKE, tmp_path, at_most=3)
    assert list(points.columns) == COLUMNS and len(points) == 3 * len(expected)
    means = averaged(points).set_index(["curve", "setting"])
    assert means.at[("25% hidden", "r=2"), "mean"] == expected["25%, r=2"]
    assert means.at[("all tokens, same epochs", "1 view"), "mean"] == expected["all tokens, same epochs"]
    whole, joint = (view_gmacs(SMOKE.model.change(soft_mask=None, **change)) for change in ({"mask_ratio": 0.0}, {}))
    assert means.at[("all tokens, same epochs", "1 view"), "gmacs"] == pytest.approx(whole)
    assert means.at[("joint", "1 view"), "gmacs"] == pytest.approx(joint)
    cells = means.loc["25% hidden", "gmacs"]
    assert list(cells.index) == ["r=0", "r=2"] and cells.is_monotonic_decreasing


def test_a_run_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"metrics\.json"):
        reported_points(SMOKE, tmp_path)


def test_views_cost_what_they_show():
    torch.manual_seed(0)
    model = create_model(TINY)
    found = {
        setting: (gmacs, scores) for _, setting, gmacs, scores in _view_points("it", model, batches(TINY), EvalConfig())
    }
    assert list(found) == ["1 view", *(f"{count} views" for count in VIEWS[1:]), PARTITION, ALL_PATCHES]
    once = hand_count(TINY).total() / 1e9
    assert [found[f"{count} view{'s' * (count > 1)}"][0] / once for count in VIEWS] == pytest.approx(list(VIEWS))
    sizes = [int(mask.sum()) for mask in complementary_masks(1, TINY.patches, TINY.mask_ratio)]
    assert found[PARTITION][0] == pytest.approx(sum(torch_count(TINY, visible=n) for n in sizes) / 1e9)
    assert found[ALL_PATCHES][0] == pytest.approx(hand_count(TINY.change(mask_ratio=0.0)).total() / 1e9)
    assert {scores.clips for _, scores in found.values()} == {4}


def test_fewer_tokens_cost_less():
    model = create_model(TINY, soft_mask=None, mask_ratio=0.0)
    found = list(_fewer_tokens("it", model, batches(TINY), EvalConfig(views=(1,), complementary=False)))
    whole = hand_count(TINY.change(soft_mask=None, mask_ratio=0.0)).total() / 1e9
    for curve in (MERGED, RANDOM):
        costs = [gmacs for name, _, gmacs, _ in found if name == curve]
        assert whole > costs[0] and costs == sorted(costs, reverse=True) and len(set(costs)) == len(costs)
    dropped = {setting: gmacs for name, setting, gmacs, _ in found if name == RANDOM}
    assert list(dropped) == [f"{ratio:.0%}" for ratio in DROPPED]
    assert dropped["50%"] == pytest.approx(view_gmacs(TINY.change(soft_mask=None, mask_ratio=0.5)))


def test_training_takes_three_forward_passes_a_clip_and_counts_what_it_starts_from():
    rows = {row.name: row.config for row in grid.rivals(SMOKE)}
    clips = len(manifest_of(SMOKE).subset("train", None))
    seen = clips - clips % SMOKE.train.batch_size
    whole = SMOKE.model.change(soft_mask=None, mask_ratio=0.0)
    masked = SMOKE.model.change(soft_mask=None)
    supervised = 3 * seen * SMOKE.train.epochs * hand_count(whole).total() / 1e12
    painting = 3 * seen * SMOKE.train.epochs * hand_count(masked, training=True).total() / 1e12
    assert training_tmacs(rows["all tokens, same epochs"]) == pytest.approx(supervised)
    assert training_tmacs(rows["joint"]) == pytest.approx(painting)
    assert training_tmacs(rows["pre-trained, same epochs each"]) == pytest.approx(supervised + painting)


def all_points(results):
    """Points of every curve that the figure and the table take, two repeats each."""
    write_points(results, SMOKE)
    points = [reported_points(SMOKE, results, at_most=2)]
    reported = points[0]["curve"].unique()
    for place, method in enumerate(methods(SMOKE).values()):
        for repeat in (0, 1) if method.curve not in reported else ():
            war = 60.0 - place + repeat
            points.append(pd.DataFrame([(method.curve, method.setting, repeat, 0.01, 50.0, war)], columns=COLUMNS))
    points.append(pd.DataFrame([(RANDOM, "50%", 0, 0.01, 50.0, 40.0)], columns=COLUMNS))
    return pd.concat(points, ignore_index=True)


def test_the_figure_draws_every_curve(tmp_path):
    figure = plots_cost_curve.accuracy_against_cost(averaged(all_points(tmp_path)))
    figure.draw_without_rendering()
    upper, lower = ({text.get_text() for text in ax.texts} for ax in figure.axes)
    assert {MERGED, RANDOM, "all tokens, same epochs"} <= upper & lower
    assert f"{grid.WITH}, by views" in upper and f"{grid.WITH}, 25% hidden" in lower
    assert not any(text.startswith("joint") for text in upper | lower)
    legend = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert legend == ["complementary masks", "all patches at once"]
    for ax in figure.axes:
        names = [Text.get_window_extent(text) for text in ax.texts if text.arrow_patch]  # without its line
        assert not any(one.overlaps(other) for place, one in enumerate(names) for other in names[:place])


def test_labels_of_the_published_figure_cover_nothing():
    curve = averaged(pd.read_csv(PROJECT / "results" / "demo" / "tables" / "cost_curve.csv"))
    with plt.rc_context():
        use_style()
        figure = plots_cost_curve.accuracy_against_cost(curve)
        figure.draw_without_rendering()
    upper, lower = ([text for text in ax.texts if not text.arrow_patch] for ax in figure.axes)
    assert {text.get_text() for text in upper} == {str(count) for count in VIEWS}
    assert {"r=0", "r=6", "r=57", "r=14", "50%", "70%"} <= {text.get_text() for text in lower}
    # Of 21 labels; whether the last one finds a place depends on the font.
    assert len(upper) + len(lower) >= 20
    for ax, texts in zip(figure.axes, (upper, lower), strict=True):
        boxes = [text.get_window_extent() for text in texts]
        assert not any(one.count_overlaps(boxes[place + 1 :]) for place, one in enumerate(boxes))
        points = [ax.transData.transform(line.get_xydata()) for line in ax.lines]
        assert not any(box.contains(x, y) for box in boxes for line in points for x, y in line)


def test_an_interval_of_a_percentage_ends_at_100():
    points = pd.DataFrame([("it", "1 view", n, 1.0, 50.0, war) for n, war in enumerate((99, 100, 98))], columns=COLUMNS)
    (row,) = averaged(points).itertuples()
    assert row.mean == 99 and row.high == 100 and row.low == pytest.approx(99 - 4.303 / 3**0.5, abs=1e-3)


def test_the_table_of_rivals_is_paired_by_repeat(tmp_path):
    """What runs have scored themselves counts with all repeats, here one more than the points have."""
    points = all_points(tmp_path)
    rows = [row for row in grid.rivals(SMOKE) if row.name != "joint"]
    scores = tables.scores(rows, tmp_path, at_most=2)
    for row, wars in {grid.WITH: (60.0, 61.0, 62.0), grid.WITHOUT: (59.0, 59.0, 61.0)}.items():
        more = [
            (row, repeat, protocol, 50.0, war) for repeat, war in enumerate(wars) for protocol in ("views_1", PARTITION)
        ]
        scores = pd.concat([scores, pd.DataFrame(more, columns=["row", "repeat", "protocol", "uar", "war"])])
    table = rival_table(SMOKE, scores, points)
    assert list(table.index) == list(methods(SMOKE)) and table.index[0] == grid.WITH
    assert "joint" not in table.index and table["lead"].iloc[0] == ""
    assert table.at[grid.WITHOUT, "lead"] == "1.3 ± 1.4" and table.at[grid.WITHOUT, "repeats"] == 3
    assert table.at[grid.WITHOUT, "parameters_m"] < table.at[grid.WITH, "parameters_m"]
    pretrained = table.loc["pre-trained, same epochs each"]
    assert pretrained["epochs"] == 2 * SMOKE.train.epochs
    assert pretrained["training_tmacs"] > table.at["all tokens, same epochs", "training_tmacs"]


def test_methods_classify():
    clips = torch.zeros(1, 3, SMOKE.model.frames, SMOKE.model.image_size, SMOKE.model.image_size)
    with torch.inference_mode():
        for method in methods(SMOKE).values():
            assert method.classifier()(clips).shape == (1, len(SMOKE.model.classes))


def test_the_frontier_holds_what_is_worth_its_cost():
    rows = [("a", "1", 1.0, 50.0), ("b", "1", 2.0, 40.0), ("c", "1", 2.0, 60.0), ("d", "1", 3.0, 60.0)]
    table = pd.DataFrame(rows, columns=["curve", "setting", "gmacs", "mean"])
    assert frontier(table)["curve"].tolist() == ["a", "c"]


def test_recalls_have_a_bar_and_an_interval_a_class():
    means = pd.DataFrame([[50.0, 20.0], [40.0, 30.0]], index=["with", "without"], columns=["happy", "sad"])
    figure = plots_cost_curve.recalls_with_intervals(means, means * 0.1)
    figure.draw_without_rendering()
    bars, intervals = figure.axes[0].containers[:2], figure.axes[0].containers[2:]
    for bar, line, name in zip(bars, intervals, means.index, strict=True):
        assert [patch.get_height() for patch in bar] == means.loc[name].tolist()
        low, high = (segment for segment in line[2][0].get_segments()[0][:, 1])
        assert (low, high) == pytest.approx((means.at[name, "happy"] * 0.9, means.at[name, "happy"] * 1.1))
