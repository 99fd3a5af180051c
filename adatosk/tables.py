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
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import nan
from pathlib import Path
from typing import Literal

import pandas as pd
from scipy import stats

from adatosk import manifests
from adatosk.grid import Row, repeated
from adatosk.train import manifest_path
from adatosk.workspace import Run

Verdict = Literal["reproduced", "not reproduced", "undecided"]
PROTOCOL = "views_1"
NEGLIGIBLE = 1.0
CONFIDENCE = 0.95


def scores(rows: Iterable[Row], results: Path, at_most: int | None = None) -> pd.DataFrame:
    """Scores of every finished run of some rows, or of the first ``at_most`` of each.

    Returns:
        one row a table row, repeat and protocol: ``row``, ``repeat`` (seed, or fold), ``protocol``, ``uar`` and ``war``
        in percent, ``train_seconds``, ``run_id``.

    Raises:
        FileNotFoundError: when a run is not there.
    """
    found = []
    for row in rows:
        for config in repeated(row, at_most):
            run_id = config.run_id(manifests.load(manifest_path(config)).digest)
            metrics = Run(results / "runs" / run_id).metrics
            repeat = config.seed if config.data.fold is None else config.data.fold
            for protocol, values in metrics["last"].items():
                found.append(
                    (row.name, repeat, protocol, values["uar"], values["war"], metrics["train_seconds"], run_id)
                )
    return pd.DataFrame(found, columns=["row", "repeat", "protocol", "uar", "war", "train_seconds", "run_id"])


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


def p_value(differences: pd.Series) -> float:
    """Two-sided paired t-test against 0; NaN for fewer than two repeats."""
    return float(stats.ttest_1samp(differences, 0).pvalue) if len(differences) > 1 else nan


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
