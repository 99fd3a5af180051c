"""Tables of the runs' scores: by row and seed, as mean ± 95 % interval, and beside the paper's.

For intervals and comparisons, see :mod:`adatosk.experiments.statistics`.
"""

import io
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from math import nan
from pathlib import Path
from typing import TextIO

import pandas as pd
import torch

from adatosk.config import RunConfig
from adatosk.cost.operations import hand_count, table2_cost
from adatosk.experiments.grid import Row, cell_name, repeated, table2
from adatosk.experiments.statistics import NOTHING, PROTOCOL, interval, paired, score_interval
from adatosk.manifests import manifest_of
from adatosk.metrics import score_folds
from adatosk.workspace import Run, Workspace


def scores(rows: Iterable[Row], results: Path, at_most: int | None = None, partial: bool = False) -> pd.DataFrame:
    """Scores of every run of some rows, or of the first ``at_most`` of each.

    Args:
        partial: leave out unfinished runs, which are an error otherwise.

    Returns:
        one row per table row, repeat and protocol: ``row``, ``repeat`` (seed or fold), ``protocol``, ``uar`` and
        ``war`` in percent, ``train_seconds``, ``run_id``.

    Raises:
        FileNotFoundError: when a run is missing, unless ``partial``.
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
            # They are float32 percentages of clip counts: without rounding, equal differences would come out unequal.
            numbers = (round(values["uar"], 4), round(values["war"], 4), metrics["train_seconds"], run.folder.name)
            found.append((row.name, repeat_of(config), protocol, *numbers))
    return pd.DataFrame(found, columns=["row", "repeat", "protocol", "uar", "war", "train_seconds", "run_id"])


def repeat_of(config: RunConfig) -> int:
    """What distinguishes a run from the others of its row: its fold or, on data without folds, its seed."""
    return config.seed if config.data.fold is None else config.data.fold


def _runs(rows: Iterable[Row], results: Path, at_most: int | None) -> Iterator[tuple[Row, RunConfig, Run]]:
    """The runs of some rows, finished or not."""
    for row in rows:
        for config in repeated(row, at_most):
            yield row, config, Run(results / "runs" / config.run_id(manifest_of(config).digest))


def over_folds(row: Row, results: Path) -> pd.DataFrame:
    """A row's cross-validation with one view, over its finished folds; see :func:`adatosk.metrics.score_folds`.

    Raises:
        FileNotFoundError: no fold has been run.
        ValueError: the row's data set has no folds.
    """
    runs: dict[int, Run] = {}
    for _, config, run in _runs([row], results, None):
        if config.data.fold is None:
            raise ValueError(f"the row '{row.name}' is not run over folds: its data set has none")
        if run.finished:
            runs[config.data.fold] = run
    if not runs:
        raise FileNotFoundError(f"{results / 'runs'}: no fold of the row '{row.name}' has been run")
    classes = row.config.model.classes
    found = {fold: run.predictions for fold, run in runs.items()}
    predicted, labels = (
        {f: torch.tensor(pd.Categorical(t[name], classes).codes.astype(int)) for f, t in found.items()}
        for name in (PROTOCOL, "label")
    )
    table, _ = score_folds(predicted, labels, classes)
    return table


def run_rows(workspace: Workspace, rows: Iterable[Row], at_most: int | None = None) -> pd.DataFrame:
    """:func:`scores` of the first ``at_most`` runs of each row; a workspace with ``train_missing`` trains them first.

    Raises:
        FileNotFoundError: runs are missing, and the workspace does not train them.
    """
    rows = list(rows)
    found = list(_runs(rows, workspace.places.results, at_most))
    trained = len({run.folder for _, _, run in found if not run.finished})
    with redirect_stdout(_Seldom(sys.stdout)):
        workspace.runs(config for _, config, _ in found)
    table = scores(rows, workspace.places.results, at_most)
    print(f"{len(rows)} rows, {table['run_id'].nunique()} runs, {trained} of them trained now")
    return table


class _Seldom(io.TextIOBase):
    """Passes on a line after half a minute, then after twice as long each time, because runs print one per epoch."""

    def __init__(self, stream: TextIO, seconds: float = 30.0):
        self.stream, self.seconds, self.last = stream, seconds, time.monotonic()

    def write(self, text: str) -> int:
        if text.strip() and time.monotonic() - self.last > self.seconds:
            self.stream.write(text.rstrip("\n") + "\n")
            self.last, self.seconds = time.monotonic(), min(2 * self.seconds, 600)
        return len(text)


def summary(table: pd.DataFrame, score: str = "war") -> pd.DataFrame:
    """Mean ± half of the interval of each row under each protocol, as text; in the order of the rows."""
    grouped = table.groupby(["row", "protocol"], sort=False)[score].apply(lambda values: str(score_interval(values)))
    return grouped.unstack(sort=False)


def against(table: pd.DataFrame, reference: str) -> pd.DataFrame:
    """Each row of :func:`scores`, and the points of WAR by which it exceeds the row ``reference``.

    Returns:
        one row per table row, in the same order: ``uar`` and ``war`` with one view as text, mean ± half of the
        interval; ``war`` under the other protocols likewise, such as ``war_views_8``; ``repeats``; ``difference`` from
        the reference with ``low``, ``high`` and ``p``, paired by repeat, NaN for the reference itself and without an
        interval.

    Raises:
        KeyError: when the reference is not in the table.
    """
    war = summary(table)
    others = war.drop(columns=PROTOCOL).add_prefix("war_")
    found = pd.DataFrame({"uar": summary(table, "uar")[PROTOCOL], "war": war[PROTOCOL]}).join(others)
    rows = {}
    for row in found.index:
        pairs = paired(table, row, reference)
        one = interval(pairs) if row != reference else replace(NOTHING, count=len(pairs))
        rows[row] = (one.count, one.mean, one.low, one.high, one.p)
    columns = ["repeats", "difference", "low", "high", "p"]
    return found.join(pd.DataFrame.from_dict(rows, orient="index", columns=columns))


def ratio_and_exclusion(table: pd.DataFrame, base: RunConfig) -> pd.DataFrame:
    """Table 2 in long form, ours beside the paper's.

    Args:
        table: scores of the rows of ``grid.table2(base)``.

    Returns:
        one row per cell of the paper: ``mask_ratio``, ``r``; ``feasible`` with the profile's sizes; ``war``, ``low``
        and ``high`` with one view, ``repeats``; ``gmacs`` of the profile's model; ``paper_model_gmacs``, our count of
        the paper's model; ``paper_war`` and ``paper_gflops``. NaN where a cell is empty.
    """
    models = {row.name: row.config.model for row in table2(base)}
    one_view = table[table["protocol"] == PROTOCOL]
    rows = []
    for cell in table2_cost().itertuples():
        name = cell_name(cell.mask_ratio, cell.r)
        found = score_interval(one_view["war"][one_view["row"] == name]) if name in models else NOTHING
        gmacs = hand_count(models[name]).total() / 1e9 if name in models else nan
        rows.append((cell.mask_ratio, cell.r, name in models, found.mean, found.low, found.high, found.count, gmacs,
                     cell.gmacs, cell.paper_war, cell.paper_gflops))  # fmt: skip
    columns = ["mask_ratio", "r", "feasible", "war", "low", "high", "repeats", "gmacs", "paper_model_gmacs"]
    return pd.DataFrame(rows, columns=[*columns, "paper_war", "paper_gflops"])


def selection(rows: Iterable[Row], results: Path, at_most: int | None = None) -> pd.DataFrame:
    """What selecting the best epoch on the test split, instead of the last one, adds to WAR with one view.

    Returns:
        one row per table row and repeat: ``row``, ``repeat``, ``last`` and ``best_on_test`` in percent, ``epoch`` of
        the latter.
    """
    found = []
    for one in scores(rows, results, at_most).query("protocol == @PROTOCOL").itertuples():
        metrics = Run(results / "runs" / one.run_id).metrics
        best = metrics["best_on_test"]
        found.append((one.row, one.repeat, one.war, round(best[PROTOCOL]["war"], 4), best["epoch"]))
    return pd.DataFrame(found, columns=["row", "repeat", "last", "best_on_test", "epoch"])
