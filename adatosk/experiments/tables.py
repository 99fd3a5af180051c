"""Tables over repeated runs: scores by row and seed, mean ± 95 % interval, paired comparison, and verdicts on claims.

The rule for verdicts was written down before the runs of the embedded benchmark were made:

* What is compared is WAR with one view after the last epoch, the paper's protocol, in points, paired by seed (or fold).
* A claim that A is better than B is *reproduced* when the 95 % interval of the mean difference (Student's t) lies above
  0, *not reproduced* when it lies below, and *undecided* when it holds 0.
* A claim that a change costs next to nothing is *reproduced* when the interval lies within ± ``NEGLIGIBLE`` points,
  *not reproduced* when it lies outside, and *undecided* otherwise.
* A claim about operations or parameters is *reproduced* when the count of the paper's own model rounds into the claimed
  range, else *not reproduced*.
* A claim about scores on a licensed data set is *undecided* without that set.

Only directions are judged: how many points a change brings differs between data sets.

Table 1's pair was looked at after ``grid.FIRST_SEEDS`` seeds and then run with more, whose number was fixed before they
ran. Looking twice makes a false alarm likelier, so the later seeds are judged alone as well (:func:`looks`). Tables
2 to 4 and the open readings were looked at twice, too (``grid.DEAR_SEEDS`` seeds and two), with too few later seeds to
judge them alone: their intervals hold the true difference a little less often than they say.
"""

import io
import sys
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from itertools import product
from math import nan
from pathlib import Path
from typing import Literal, TextIO

import pandas as pd
import torch

from adatosk.config import RunConfig
from adatosk.cost.operations import hand_count, table2_cost
from adatosk.experiments.grid import Row, cell_name, repeated, table2
from adatosk.manifests import manifest_of
from adatosk.metrics import score_folds
from adatosk.workspace import Run, Workspace

Verdict = Literal["reproduced", "not reproduced", "undecided"]
PROTOCOL = "views_1"
NEGLIGIBLE = 1.0
CONFIDENCE = 0.95


def scores(rows: Iterable[Row], results: Path, at_most: int | None = None, partial: bool = False) -> pd.DataFrame:
    """Scores of every run of some rows, or of the first ``at_most`` of each.

    Args:
        partial: leave out runs that are not finished, which are an error otherwise.

    Returns:
        one row a table row, repeat and protocol: ``row``, ``repeat`` (seed, or fold), ``protocol``, ``uar`` and ``war``
        in percent, ``train_seconds``, ``run_id``.

    Raises:
        FileNotFoundError: when a run is not there, unless ``partial``.
    """
    found = []
    for row, config, run in _runs(rows, results, at_most):
        if not run.finished:
            if partial:
                continue
            where = f"the run '{row.name}', repeat {repeat_of(config)}, is not there"
            raise FileNotFoundError(f"{run.folder / 'metrics.json'}: {where}")
        metrics = run.metrics
        for protocol, values in metrics["last"].items():
            # Counts of clips as float32 percents: their differences would not round alike.
            numbers = (round(values["uar"], 4), round(values["war"], 4), metrics["train_seconds"], run.folder.name)
            found.append((row.name, repeat_of(config), protocol, *numbers))
    return pd.DataFrame(found, columns=["row", "repeat", "protocol", "uar", "war", "train_seconds", "run_id"])


def repeat_of(config: RunConfig) -> int:
    """What tells a run from its row's others: its fold, or, on data without folds, its seed."""
    return config.seed if config.data.fold is None else config.data.fold


def _runs(rows: Iterable[Row], results: Path, at_most: int | None) -> Iterator[tuple[Row, RunConfig, Run]]:
    """The runs of some rows, finished or not."""
    for row in rows:
        for config in repeated(row, at_most):
            yield row, config, Run(results / "runs" / config.run_id(manifest_of(config).digest))


def over_folds(row: Row, results: Path, protocol: str = PROTOCOL) -> pd.DataFrame:
    """A row as the field reports a cross-validation, of its folds that have been run: ``score_folds``' table.

    Raises:
        FileNotFoundError: no fold has been run.
    """
    runs = {config.data.fold: run for _, config, run in _runs([row], results, None) if run.finished}
    if not runs:
        raise FileNotFoundError(f"{results / 'runs'}: no fold of the row '{row.name}' has been run")
    classes = row.config.model.classes
    found = {fold: run.predictions for fold, run in runs.items()}
    places = (
        {f: torch.tensor(pd.Categorical(t[name], classes).codes.astype(int)) for f, t in found.items()}
        for name in (protocol, "label")
    )
    table, _ = score_folds(*places, classes)
    return table


def run_rows(workspace: Workspace, rows: Iterable[Row], at_most: int | None = None) -> pd.DataFrame:
    """Train what is missing of the first ``at_most`` runs of each row; gives back :func:`scores` of them."""
    rows, trained = list(rows), 0
    for _, config, run in _runs(rows, workspace.places.results, at_most):
        if not run.finished:
            with redirect_stdout(_Seldom(sys.stdout)):
                workspace.train(config)
            trained += 1
    table = scores(rows, workspace.places.results, at_most)
    print(f"{len(rows)} rows, {table['run_id'].nunique()} runs, {trained} of them trained now")
    return table


class _Seldom(io.TextIOBase):
    """Passes on one line in half a minute: a grid's runs write one an epoch."""

    def __init__(self, stream: TextIO, seconds: float = 30.0):
        self.stream, self.seconds, self.last = stream, seconds, time.monotonic()

    def write(self, text: str) -> int:
        if text.strip() and time.monotonic() - self.last > self.seconds:
            self.stream.write(text.rstrip("\n") + "\n")
            self.last = time.monotonic()
        return len(text)


@dataclass(frozen=True)
class Interval:
    """A mean over ``count`` repeats with its 95 % interval; NaN bounds for a single one."""

    mean: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.mean:.1f}" if self.count < 2 else f"{self.mean:.1f} ± {(self.high - self.low) / 2:.1f}"


def interval(values: pd.Series) -> Interval:
    """Mean and Student's t interval of independent values; ``ValueError`` when there are none."""
    count = len(values)
    if count == 0:
        raise ValueError("no values to average")
    mean = float(values.mean())
    if count == 1:
        return Interval(mean, nan, nan, 1)
    from scipy import stats  # it takes a second, and a notebook that reads a table needs none of it

    reach = float(stats.t.ppf((1 + CONFIDENCE) / 2, count - 1) * stats.sem(values))
    return Interval(mean, mean - reach, mean + reach, count)


def summary(table: pd.DataFrame, score: str = "war") -> pd.DataFrame:
    """Mean ± half of the interval of each row under each protocol, as text; rows as they came."""
    grouped = table.groupby(["row", "protocol"], sort=False)[score].apply(lambda values: str(interval(values)))
    return grouped.unstack(sort=False)


def paired(table: pd.DataFrame, better: str, worse: str, score: str = "war", protocol: str = PROTOCOL) -> pd.Series:
    """How many points ``better`` is above ``worse``, by repeat; only repeats that both have.

    Raises:
        KeyError: for a row that is not in the table.
    """
    chosen = table[table["protocol"] == protocol].pivot(index="repeat", columns="row", values=score)
    return (chosen[better] - chosen[worse]).dropna()


def by_look(differences: pd.Series, first: int | None) -> dict[str, pd.Series]:
    """Differences by seed: all, and, where some were run after a look at the ``first`` ones, those before and after."""
    choices = {"all": differences}
    if first is not None and (differences.index >= first).any():
        before = differences.index < first
        choices |= {f"first {first}": differences[before], "later": differences[~before]}
    return choices


def looks(table: pd.DataFrame, better: str, worse: str, first: int | None) -> pd.DataFrame:
    """How many points ``better`` is above ``worse``: over all seeds, and over those before and after a look at them.

    Args:
        table: as of :func:`scores`.
        first: number of seeds before the look, as of :func:`adatosk.experiments.grid.first_look`; ``None``: there was
        none.

    Returns:
        one row a choice of seeds that holds any, protocol and score: ``repeats``, the choice in words; ``protocol``;
        ``score``, ``uar`` or ``war``; ``difference`` with ``low``, ``high`` and ``p``; ``count`` of seeds. Only the row
        ``all`` of each unless there are seeds from after the look.
    """
    rows = []
    for protocol, score in product(table["protocol"].unique(), ("uar", "war")):
        for name, part in by_look(paired(table, better, worse, score, protocol), first).items():
            one = interval(part)
            rows.append((name, protocol, score, one.mean, one.low, one.high, p_value(part), one.count))
    return pd.DataFrame(rows, columns=["repeats", "protocol", "score", "difference", "low", "high", "p", "count"])


def p_value(differences: pd.Series) -> float:
    """Two-sided paired t-test against 0; NaN for fewer than two repeats."""
    if len(differences) < 2:
        return nan
    from scipy import stats

    with warnings.catch_warnings():
        # Equal differences, which a test set of a few clips makes likely, have no spread to test against.
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(stats.ttest_1samp(differences, 0).pvalue)


def against(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Each row of :func:`scores`, and by how many points of WAR it is above the row ``reference``.

    Returns:
        one row a table row, as they came: ``uar`` and ``war`` with one view as text, mean ± half of the interval;
        ``war`` under the other protocols likewise, as ``war_views_8``; ``repeats``; ``difference`` to the reference
        with ``low``, ``high`` and ``p``, paired by repeat, NaN for the reference itself.

    Raises:
        KeyError: when the reference is not in the table.
    """
    war = summary(table)
    others = war.drop(columns=PROTOCOL).add_prefix("war_")
    found = pd.DataFrame({"uar": summary(table, "uar")[PROTOCOL], "war": war[PROTOCOL]}).join(others)
    rows = {}
    for row in found.index:
        pairs = paired(table, row, reference)
        one = interval(pairs) if row != reference else Interval(nan, nan, nan, len(pairs))
        rows[row] = (one.count, one.mean, one.low, one.high, p_value(pairs) if row != reference else nan)
    columns = ["repeats", "difference", "low", "high", "p"]
    return found.join(pd.DataFrame.from_dict(rows, orient="index", columns=columns))


def ratio_and_exclusion(table: pd.DataFrame, base: RunConfig) -> pd.DataFrame:
    """Table 2 in long form, ours beside the paper's.

    Args:
        table: scores of the rows of ``grid.table2(base)``.

    Returns:
        one row a cell of the paper: ``mask_ratio``, ``r``; ``feasible`` with the profile's sizes; ``war``, ``low`` and
        ``high`` with one view, ``repeats``; ``gmacs`` of the profile's model; ``paper_model_gmacs``, our count of the
        paper's; ``paper_war`` and ``paper_gflops``. NaN where a cell is empty.
    """
    models = {row.name: row.config.model for row in table2(base)}
    one_view = table[table["protocol"] == PROTOCOL]
    rows = []
    for cell in table2_cost().itertuples():
        name = cell_name(cell.mask_ratio, cell.r)
        found = interval(one_view["war"][one_view["row"] == name]) if name in models else Interval(nan, nan, nan, 0)
        gmacs = sum(hand_count(models[name]).values()) / 1e9 if name in models else nan
        rows.append((cell.mask_ratio, cell.r, name in models, found.mean, found.low, found.high, found.count, gmacs,
                     cell.gmacs, cell.paper_war, cell.paper_gflops))  # fmt: skip
    columns = ["mask_ratio", "r", "feasible", "war", "low", "high", "repeats", "gmacs", "paper_model_gmacs"]
    return pd.DataFrame(rows, columns=[*columns, "paper_war", "paper_gflops"])


def selection(rows: Iterable[Row], results: Path, at_most: int | None = None) -> pd.DataFrame:
    """What reporting the best epoch on the test split, not the last one, adds to WAR with one view.

    Returns:
        one row a table row and repeat: ``row``, ``repeat``, ``last`` and ``best_on_test`` in percent, ``epoch`` of the
        latter.
    """
    found = []
    for one in scores(rows, results, at_most).query("protocol == @PROTOCOL").itertuples():
        metrics = Run(results / "runs" / one.run_id).metrics
        best = metrics["best_on_test"]
        found.append((one.row, one.repeat, one.war, best[PROTOCOL]["war"], best["epoch"]))
    return pd.DataFrame(found, columns=["row", "repeat", "last", "best_on_test", "epoch"])


def judge_better(difference: Interval) -> Verdict:
    """The rule for a claim that one row is better than another."""
    if difference.low > 0:
        return "reproduced"
    return "not reproduced" if difference.high < 0 else "undecided"


def judge_negligible(difference: Interval, margin: float = NEGLIGIBLE) -> Verdict:
    """The rule for a claim that two rows hardly differ."""
    if -margin <= difference.low and difference.high <= margin:
        return "reproduced"
    return "not reproduced" if difference.low > margin or difference.high < -margin else "undecided"


def judge_count(value: float, low: float, high: float, rounding: float) -> Verdict:
    """The rule for a claim about operations or parameters; ``rounding`` is half a unit of the claim's last digit."""
    return "reproduced" if low - rounding <= value <= high + rounding else "not reproduced"
