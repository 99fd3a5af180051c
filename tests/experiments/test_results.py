"""What the repository claims of profile demo is what its committed runs give; which way a result went is not asked.

A rerun that comes out otherwise writes other tables, verdicts and README, and passes. What has to hold of any honest
run is that its models have learned something: the check for that fails for guessing, for an untrained model and for
shuffled labels.
"""

import copy
import re
from collections.abc import Callable
from functools import cache
from itertools import permutations

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest

from adatosk import create_model, paper
from adatosk.clips.transforms import central_window, cut
from adatosk.evaluate import predict_split
from adatosk.experiments import activation_map, ambiguities, cost_curve, paper_vs_ours, report, tables, verdicts
from adatosk.experiments.grid import BOTH, HEADLINE, HEADLINE_SEEDS, TABLES, chosen_on
from adatosk.experiments.runs import configs
from adatosk.experiments.statistics import PROTOCOL, interval, looks, score_interval
from adatosk.presets import MOTIONS, PROFILES
from adatosk.synthetic import BENCHMARKS, render, sample_script
from adatosk.synthetic.dynamics import REAL, dynamics
from adatosk.utils.files import write_csv
from adatosk.utils.project import PROJECT
from adatosk.video import frame_indices
from adatosk.workspace import Run

RESULTS = PROJECT / "results" / "demo"
BASE = PROFILES["demo"]
SURE = 1e-6  # how rarely guessing may pass for a model; a few dozen clips and more are checked at a time


@pytest.fixture(scope="module")
def pair() -> list[Run]:
    return list(report.headline_runs("demo", RESULTS).values())


# ------------------------------------------------------------------------------- the models have learned something


def check_learned(predicted: pd.Series, labels: pd.Series) -> None:
    """More clips are right than by naming the most frequent class, or by any other guess, but once in a million."""
    right, most = int((predicted == labels).sum()), labels.value_counts(normalize=True).max()
    assert binomtest(right, len(labels), most, alternative="greater").pvalue < SURE


def test_the_committed_predictions_are_no_guesses(pair):
    for run in pair:
        found = run.predictions
        for protocol in run.metrics["last"]:
            check_learned(found[protocol], found["label"])


def test_shuffled_labels_do_not_pass(pair):
    for seed, run in enumerate(pair):
        found = run.predictions
        shuffled = pd.Series(np.random.default_rng(seed).permutation(found["label"]), index=found.index)
        for protocol in run.metrics["last"]:
            with pytest.raises(AssertionError):
                check_learned(found[protocol], shuffled)


def test_guessing_does_not_pass(pair):
    labels = pair[0].predictions["label"]
    majority = pd.Series(labels.mode()[0], index=labels.index)
    drawn = pd.Series(np.random.default_rng(0).choice(labels.unique(), len(labels)), index=labels.index)
    for guessed in (majority, drawn):
        with pytest.raises(AssertionError):
            check_learned(guessed, labels)


def test_an_untrained_model_does_not_pass_on_clips_on_which_a_trained_one_does(pair):
    config = BENCHMARKS["embedded-demo"]
    scripts = [sample_script(config, "test", index) for index in range(70)]
    clips = [as_seen(render(script, config)) for script in scripts]
    labels = pd.Series([script.label for script in scripts])
    trained = pair[0].predictions.iloc[: len(labels)]
    assert trained["label"].tolist() == labels.tolist()
    check_learned(trained["views_8"], labels)
    torch.manual_seed(0)
    indices = torch.tensor([config.classes.index(label) for label in labels])
    batch = {"video": torch.stack(clips), "label": indices, "index": torch.arange(len(clips))}
    found = predict_split(create_model(BASE.model), [batch], BASE.evaluation)
    for scores in found.scores(config.classes).values():
        right = round(len(labels) * scores.war / 100)
        as_many_right = labels.where(np.arange(len(labels)) < right, "another")
        with pytest.raises(AssertionError):
            check_learned(as_many_right, labels)


def as_seen(frames: np.ndarray) -> torch.Tensor:
    """The 16 frames that a model sees, uint8 ``(C, T, side, side)``."""
    chosen = torch.from_numpy(frames[frame_indices(len(frames))]).permute(0, 3, 1, 2)
    side = BASE.model.image_size
    return cut(chosen, central_window(*chosen.shape[-2:], image_size=side), side).permute(1, 0, 2, 3)


# ---------------------------------------------------------------------------------------- runs say what they did


def test_both_runs_had_the_same_budget_data_and_seed(pair):
    first, second = (copy.deepcopy(run.metrics["config"]) for run in pair)
    assert first["model"].pop("soft_mask") is not None
    assert second["model"].pop("soft_mask") is None
    assert first == second
    assert pair[0].metrics["manifest"] == pair[1].metrics["manifest"]
    assert pair[0].metrics["provenance"]["commit"] == pair[1].metrics["provenance"]["commit"]


def test_the_scores_of_every_run_are_those_of_its_predictions():
    for run_id in configs("demo"):
        run = Run(RESULTS / "runs" / run_id)
        found = run.predictions
        for protocol, scores in run.metrics["last"].items():
            right = found[protocol] == found["label"]
            recalls = right.groupby(found["label"]).mean()
            assert 100 * right.mean() == pytest.approx(scores["war"], abs=1e-4), run_id
            assert 100 * recalls.mean() == pytest.approx(scores["uar"], abs=1e-4), run_id
            assert scores["recalls"] == pytest.approx((100 * recalls).to_dict(), abs=1e-4)


def test_the_log_of_a_run_has_a_line_an_epoch(pair):
    for run in pair:
        assert len(run.log) == run.metrics["config"]["train"]["epochs"]


# --------------------------------------------------------------------- tables and verdicts are those of the runs


@cache
def scores_of(name: str) -> pd.DataFrame:
    rows = ambiguities.rows(BASE) if name == "open_readings" else TABLES[name](BASE)
    return tables.scores(rows, RESULTS)


@cache
def study() -> verdicts.Study:
    return verdicts.Study(BASE, RESULTS)


def beside_the_papers(name: str, whole: str) -> pd.DataFrame:
    reported = {"table3": paper.table3, "table4": paper.table4}[name]()
    reported = reported.set_index(reported.columns[0])[["uar", "war"]]
    return tables.against(scores_of(name), whole).join(reported.add_prefix("paper_"))


def recalls() -> pd.DataFrame:
    one_view, found = scores_of("table1").query("protocol == @PROTOCOL"), {}
    for row, part in one_view.groupby("row", sort=False):
        each = [Run(RESULTS / "runs" / run_id).metrics["last"][PROTOCOL]["recalls"] for run_id in part["run_id"]]
        found[row] = pd.DataFrame(each).agg(score_interval).map(str)
    return pd.DataFrame(found).T.rename_axis("model")


def selection() -> pd.DataFrame:
    runs = report.headline_runs("demo", RESULTS)
    rows = {
        (name, kind): {protocol: run.metrics[kind][protocol]["war"] for protocol in run.metrics["last"]}
        for name, run in runs.items()
        for kind in ("last", "best_on_test")
    }
    return pd.DataFrame(rows).T.rename_axis(["model", "weights"])


def rivals() -> pd.DataFrame:
    """Seconds are measured, and so are some points, which take weights."""
    points = pd.read_csv(RESULTS / "tables" / "cost_curve.csv")
    trained = pd.concat([scores_of(name) for name in ("table1", "table2", "rivals")])
    return cost_curve.rival_table(BASE, trained, points)


def changed_masks() -> pd.DataFrame:
    return tables.scores(activation_map.rows(BASE), RESULTS)


def both_masks() -> pd.DataFrame:
    return scores_of("table3").query("row == @BOTH")


def motion() -> pd.DataFrame:
    means = {}
    for kind, name in (("sparse", "embedded-demo"), ("lifelike", "embedded-demo-lifelike")):
        scripts = (sample_script(BENCHMARKS[name], "test", index) for index in range(350))
        means[kind] = dynamics(scripts).mean(numeric_only=True)
    return pd.DataFrame(means | {"real": REAL}).T


COMPUTED: dict[str, Callable[[], pd.DataFrame]] = {
    "table1": lambda: report.results_table("demo", RESULTS),
    "seeds": lambda: report.seeds_table(PROFILES["demo"], RESULTS),
    **{f"{name}_summary": lambda name=name: report.grid_table("demo", name, RESULTS) for name in report.TITLES},
    "table2": lambda: tables.ratio_and_exclusion(scores_of("table2"), BASE),
    "table3": lambda: beside_the_papers("table3", "CA + CS (A+M)"),
    "table4": lambda: beside_the_papers("table4", "l1"),
    "gain": lambda: looks(scores_of("table1"), *HEADLINE, chosen_on(BASE)),
    "recalls": recalls,
    "selection": selection,
    "open_readings": lambda: ambiguities.measured(scores_of("open_readings")),
    "open_readings_claims": lambda: ambiguities.claims(scores_of("open_readings")),
    "open_readings_cost": ambiguities.counted,
    "open_readings_epochs": lambda: tables.selection(TABLES["table1"](BASE), RESULTS).set_index("row"),
    "paper_vs_ours": lambda: paper_vs_ours.every_number(study()).set_index(["table", "row", "quantity"]),
    "verdicts": lambda: verdicts.verdicts(BASE, RESULTS).set_index("id"),
    "activation_map": lambda: activation_map.differences(changed_masks()).set_index(["mask", "change"]),
    "activation_map_order": lambda: activation_map.order(changed_masks()).set_index(["id", "what"]),
    "baselines": lambda: tables.against(pd.concat([both_masks(), scores_of("baselines")]), BOTH),
    "table1_embedded": rivals,
    "motion": motion,
}
# Of these, what the runs' own scores do not give: columns, or rows.
MEASURED = {"table1_embedded": ["ms_per_clip"]}
# Rendered clips, weights, trainings or the clock are needed for these; and settings are those of the configurations.
OTHERS = {
    "clip_statistics_embedded", "mask_scores", "cost_curve", "cost_table1", "cost_table2", "headline", "settings",
    "tokens_in_training",
}  # fmt: skip


def check_table(name: str, committed: pd.DataFrame, computed: pd.DataFrame, folder) -> None:
    """The same words, and the same numbers as far as the committed ones are rounded."""
    path = folder / f"{name}.csv"
    write_csv(path, computed)
    header = list(range(computed.columns.nlevels))
    found, committed = pd.read_csv(path, header=header), committed.drop(columns=MEASURED.get(name, []))
    assert list(found.columns) == list(committed.columns)
    for column in committed:
        if is_number(committed[column]):
            assert found[column].to_numpy(float) == pytest.approx(committed[column], abs=6e-3, nan_ok=True), column
        else:
            assert found[column].fillna("").tolist() == committed[column].fillna("").tolist(), column


def is_number(column: pd.Series) -> bool:
    """Of numbers; neither of words nor of yes and no."""
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def read_committed(name: str) -> pd.DataFrame:
    return pd.read_csv(RESULTS / "tables" / f"{name}.csv", header=[0, 1] if name == "seeds" else 0)


@pytest.mark.parametrize("name", list(COMPUTED))
def test_committed_tables_and_verdicts_are_those_of_the_committed_runs(name, tmp_path):
    check_table(name, read_committed(name), COMPUTED[name](), tmp_path)


@pytest.mark.parametrize("name", [name for name in report.TITLES if TABLES[name](PROFILES["demo-lifelike"])])
def test_committed_tables_of_lifelike_clips_are_those_of_their_runs(name, tmp_path):
    there = RESULTS.parent / "demo-lifelike"
    committed = pd.read_csv(there / "tables" / f"{name}_summary.csv")
    check_table(f"{name}_summary", committed, report.grid_table("demo-lifelike", name, there), tmp_path)


def test_every_committed_table_is_checked_or_known_to_take_more_than_the_runs():
    assert {path.stem for path in (RESULTS / "tables").glob("*.csv")} == set(COMPUTED) | OTHERS


@pytest.mark.parametrize(("name", "column"), [("table3", "war"), ("verdicts", "verdict"), ("table2", "war")])
def test_a_number_or_verdict_that_the_runs_do_not_give_is_found(name, column, tmp_path):
    told = read_committed(name)
    told.loc[0, column] = told[column].mean() if is_number(told[column]) else "made up"
    with pytest.raises(AssertionError):
        check_table(name, told, COMPUTED[name](), tmp_path)


def test_the_curve_has_the_scores_of_the_runs():
    told = read_committed("cost_curve").set_index(["curve", "setting", "repeat"])
    found = cost_curve.reported_points(BASE, RESULTS).set_index(["curve", "setting", "repeat"])
    there = told.index.intersection(found.index)
    assert len(there) == len(found)
    assert found.loc[there].to_numpy() == pytest.approx(told.loc[there, found.columns].to_numpy(), abs=1e-3)


def test_the_headline_has_the_scores_of_the_pair():
    told = read_committed("headline").set_index("model")
    for name, run in report.headline_runs("demo", RESULTS).items():
        for column in told:
            protocol, score = column.rsplit("_", 1)
            assert told.at[name, column] == pytest.approx(run.metrics["last"][protocol][score], abs=6e-3)
        majority = [run.metrics["majority"][column.rsplit("_", 1)[1]] for column in told]
        assert told.loc["most frequent class"].tolist() == pytest.approx(majority, abs=6e-3)


def test_every_seed_of_the_pair_is_there():
    counts = scores_of("table1").groupby(["row", "protocol"])["repeat"].nunique()
    assert set(counts) == {HEADLINE_SEEDS} and set(counts.index.get_level_values("row")) == set(HEADLINE)


def test_the_gain_in_the_table_is_the_difference_of_its_rows():
    table = report.score_table(report.headline_runs("demo", RESULTS))
    with_mask, without = list(HEADLINE)
    gain = table.loc[with_mask] - table.loc[without]
    assert table.loc["gain of the soft mask"].equals(gain.rename("gain of the soft mask"))


@pytest.mark.parametrize(
    ("notebook", "profiles", "rows"),
    [
        ("08_ablation_hard_mask_and_exclusion", ["demo"], TABLES["table2"]),
        ("14_activation_map", MOTIONS.values(), activation_map.rows),
    ],
)
def test_every_interval_in_the_words_of_a_notebook_is_one_that_the_committed_runs_give(notebook, profiles, rows):
    cells = nbformat.read(PROJECT / "notebooks" / f"{notebook}.ipynb", 4).cells
    words = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    said = re.findall(r"−?\d+\.\d \[−?\d+\.\d, −?\d+\.\d\]", words)
    found = set()
    for name in profiles:
        scores = tables.scores(rows(PROFILES[name]), PROJECT / "results" / name, partial=True)
        wars = scores[scores["protocol"] == PROTOCOL].pivot(index="repeat", columns="row", values="war")
        for better, worse in permutations(wars, 2):
            one = interval(wars[better] - wars[worse])
            found.add(f"{one.mean:z.1f} [{one.low:z.1f}, {one.high:z.1f}]".replace("-", "−"))
    assert said and set(said) <= found
