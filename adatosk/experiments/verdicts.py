"""How each claim of the paper (``paper.CLAIMS``) is judged, by the rule of ``adatosk.experiments.statistics``.

Claims about rows of Tables 1 to 4 are judged on the runs of a profile, claims about cost on counts of the paper's own
model ``adatosk_base``, whatever the profile, and claims about rivals' scores on the licensed sets only if the profile
uses one of them: otherwise the verdict names the sets, as in *needs DFEW and MAFW*. Where the paper has no number of
the rival either, there is *nothing to compare with*. Some claims take several comparisons, for example one for each
hard mask ratio. Such a claim is *reproduced* when every comparison is, *not reproduced* when at least one is not,
otherwise *too few runs* when a comparison lacks repeats, then *needs* a set when one does, and *undecided* in all other
cases. Intervals and p values are per comparison, without a correction for multiple comparisons.
"""

from collections.abc import Callable, Iterable
from dataclasses import astuple, dataclass, field
from functools import cache
from math import nan
from pathlib import Path
from typing import Literal

import pandas as pd

from adatosk import paper
from adatosk.config import RunConfig
from adatosk.cost.operations import table1_cost, table2_cost
from adatosk.experiments import grid, statistics, tables
from adatosk.experiments.statistics import NOTHING, Interval, interval, paired

_RATIOS = ("25%", "50%", "70%")
NOTHING_TO_COMPARE = "nothing to compare with"
_NEEDS = "needs "


@dataclass(frozen=True)
class Finding:
    """One comparison behind a verdict.

    Attributes:
        what: the comparison in words.
        ours: our number in the claim's unit; NaN where there is none, bounds NaN where there is no interval.
        verdict: of this comparison alone: one of ``statistics.VERDICTS``, ``NOTHING_TO_COMPARE`` or a missing set.
        why: the reason in words, with the numbers.
    """

    what: str
    ours: Interval
    verdict: str
    why: str


@dataclass(frozen=True)
class Study:
    """The runs that claims are judged on: those of a profile, at most the first ``at_most`` of each row.

    The rule's ``protocol`` is one view; others show how sensitive the verdicts are to it.
    """

    base: RunConfig
    results: Path
    at_most: int | None = None
    protocol: str = statistics.PROTOCOL
    _found: dict[str, pd.DataFrame] = field(default_factory=dict, init=False, repr=False, compare=False)

    def scores(self, table: str) -> pd.DataFrame:
        """:func:`adatosk.experiments.tables.scores` of all rows of a table of :mod:`adatosk.experiments.grid`."""
        if table not in self._found:
            self._found[table] = tables.scores(grid.TABLES[table](self.base), self.results, self.at_most)
        return self._found[table]

    @property
    def data(self) -> str:
        """The name of the data set the runs are on."""
        return Path(self.base.data.manifest).stem


@dataclass(frozen=True)
class Compared:
    """Pairs of rows of one table, the better or the costlier one first; every pair has to agree with the claim."""

    table: str
    pairs: tuple[tuple[str, str], ...]
    kind: Literal["better", "negligible"] = "better"

    def findings(self, claim: paper.Claim, study: Study) -> list[Finding]:
        """One finding per pair; undecided if a row is impossible with the profile's sizes."""
        return [self._finding(study, *pair) for pair in self.pairs]

    def _finding(self, study: Study, first: str, second: str) -> Finding:
        scores, what = study.scores(self.table), f"{first} less {second}"
        absent = sorted({first, second} - set(scores["row"]))
        if absent:
            why = f"{', '.join(absent)}: impossible with this profile's sizes"
            return Finding(what, NOTHING, "undecided", why)
        differences, of_uar = (paired(scores, first, second, score, study.protocol) for score in ("war", "uar"))
        ours, uar = interval(differences), interval(of_uar)
        judge = statistics.judge_better if self.kind == "better" else statistics.judge_negligible
        why = f"{what}: WAR {ours}, UAR {uar} points, paired repeats: {ours.count}"
        return Finding(what, ours, judge(ours), why)


@dataclass(frozen=True)
class Counted:
    """Numbers derived from counts of the paper's own model, by name; each has to round into the claimed range."""

    numbers: Callable[[], dict[str, float]]
    kind: Literal["count"] = "count"

    def findings(self, claim: paper.Claim, study: Study) -> list[Finding]:
        """One finding per number."""
        found = []
        for name, number in self.numbers().items():
            verdict = statistics.judge_count(number, claim.low, claim.high, claim.rounding)
            found.append(Finding(name, Interval(number, nan, nan, 1), verdict, f"{name}: {number:z.1f}"))
        return found


@dataclass(frozen=True)
class Published:
    """The best of some methods' scores in Table 1, by column such as ``dfew_war``; known on licensed sets only."""

    methods: tuple[str, ...]
    columns: tuple[str, ...]
    kind: Literal["data set"] = "data set"

    def findings(self, claim: paper.Claim, study: Study) -> list[Finding]:
        """One finding per column; without a verdict if the runs are on other data, or Table 1 has no such score."""
        reported = paper.table1().set_index("method").loc[list(self.methods)]
        return [self._finding(study, column, reported[column].max()) for column in self.columns]

    def _finding(self, study: Study, column: str, rival: float) -> Finding:
        name, score = column.rsplit("_", 1)
        of = self.methods[0] if len(self.methods) == 1 else f"{len(self.methods)} methods"
        what = f"{score.upper()} on {paper.SETS[name]} over {of}"
        if pd.isna(rival):
            return Finding(what, NOTHING, NOTHING_TO_COMPARE, f"Table 1 has no {what.partition(' over ')[0]} of it")
        if study.data != name:
            needed = f"{_NEEDS}{paper.SETS[name]}"
            return Finding(what, NOTHING, needed, needed)
        scores = study.scores("table1")
        ours = scores[(scores["row"] == grid.WITH) & (scores["protocol"] == study.protocol)][score] - rival
        found = interval(ours)
        why = f"{what}: {found} points over its {rival}, repeats: {found.count}"
        return Finding(what, found, statistics.judge_better(found), why)


def _columns(*sets: str) -> tuple[str, ...]:
    return tuple(f"{name}_{score}" for name in sets for score in ("uar", "war"))


@cache
def _counts() -> pd.DataFrame:
    """Our costs by the row of Table 1; cached, because counting is slow and several claims need it."""
    return table1_cost().set_index("paper_row")


def _below(column: str, methods: Iterable[str], ours: Iterable[str]) -> dict[str, float]:
    """How far our count of each row of ``ours`` is below the value that Table 1 reports for each method."""
    counted = _counts()[_COUNTED[column]]
    reported = paper.table1().set_index("method").loc[list(methods), column].dropna()
    return {
        f"{method} (reported) less ours {name}": theirs - counted.at[PAPER_ROWS[name]]
        for name in ours
        for method, theirs in reported.items()
    }


def _mask_takes(column: str) -> dict[str, float]:
    counted = _counts()[_COUNTED[column]]
    return {
        f"{grid.WITHOUT} less {grid.WITH}": counted.at[PAPER_ROWS[grid.WITHOUT]] - counted.at[PAPER_ROWS[grid.WITH]]
    }


def _saved(along: str, before: float, after: float) -> dict[str, float]:
    """Percent of the multiply-accumulates that a step along r or the ratio of Table 2 saves, where it is possible."""
    across = {"r": "mask_ratio", "mask_ratio": "r"}[along]
    cells = table2_cost().pivot(index=across, columns=along, values="gmacs").dropna(subset=[before, after])
    return {f"{across} {key:g}": 100 * (1 - cell[after] / cell[before]) for key, cell in cells.iterrows()}


_COUNTED = {"parameters_m": "classification_m", "flops_g": "gmacs"}  # without the decoder, which classifies nothing
PAPER_ROWS = {grid.WITH: paper.WITH_SOFT_MASK, grid.WITHOUT: paper.WITHOUT_SOFT_MASK}
_PAIR = (grid.WITHOUT, grid.WITH)
_ALL_SETS = _columns(*paper.SETS)

# How each claim is judged, by its id.
JUDGED: dict[str, Compared | Counted | Published] = {
    "gain over the best": Published(tuple(paper.group("supervised", "language", "videomae")), _ALL_SETS),
    "smaller model": Counted(lambda: _below("parameters_m", ["HICMAE"], [grid.WITH])),
    "lower cost": Counted(lambda: _below("flops_g", ["HICMAE"], [grid.WITH])),
    "gain over supervised": Published(tuple(paper.group("supervised")), _ALL_SETS),
    **{f"gain over A³lign-DFER, {column}": Published(("A³lign-DFER",), (column,)) for column in _ALL_SETS},
    "gain over MAE-DFER": Published(("MAE-DFER",), _ALL_SETS),
    "gain over MMA-DFER": Published(("MMA-DFER",), _columns("ferv39k")),
    "parameters without mask": Counted(lambda: _below("parameters_m", ["VideoMAE"], [grid.WITHOUT])),
    "cost without mask": Counted(lambda: _below("flops_g", ["VideoMAE"], [grid.WITHOUT])),
    "parameters of the mask": Counted(lambda: _mask_takes("parameters_m")),
    "cost of the mask": Counted(lambda: _mask_takes("flops_g")),
    "gain of the mask": Compared("table1", ((grid.WITH, grid.WITHOUT),)),
    "parameters against ViT-B": Counted(lambda: _below("parameters_m", paper.group("videomae"), _PAIR)),
    "cost against ViT-B": Counted(lambda: _below("flops_g", paper.group("videomae"), _PAIR)),
    "both masks against CA": Compared("table3", ((grid.BOTH, grid.AGNOSTIC),)),
    "both masks against CS": Compared("table3", ((grid.BOTH, grid.SEMANTIC),)),
    "one score in CS": Compared("table3", ((grid.SEMANTIC, "CS (M)"), (grid.SEMANTIC, "CS (A)"))),
    "cost of r = 2": Counted(lambda: _saved("r", 0, 2)),
    "loss of r = 2": Compared("table2", tuple((f"{r}, r=0", f"{r}, r=2") for r in _RATIOS), "negligible"),
    "ratio and WAR": Compared("table2", tuple((f"70%, r={r}", f"25%, r={r}") for r in (0, 2))),
    "ratio and cost": Counted(lambda: _saved("mask_ratio", 0.25, 0.7)),
    "best distance": Compared("table4", (("l1", "l2"), ("l2", "cosine"), ("l1", "classification"))),
}


def combined(found: Iterable[str]) -> str:
    """The verdict on a claim from those of its comparisons."""
    found = list(dict.fromkeys(found))
    if len(found) == 1:
        return found[0]
    for decisive in ("not reproduced", "too few runs"):
        if decisive in found:
            return decisive
    needed = [verdict.removeprefix(_NEEDS) for verdict in found if verdict.startswith(_NEEDS)]
    return f"{_NEEDS}{', '.join(needed[:-1])}{' and ' * (len(needed) > 1)}{needed[-1]}" if needed else "undecided"


def comparisons(study: Study, table: str | None = None, partial: bool = False) -> pd.DataFrame:
    """Every comparison behind the verdicts, or those on rows of one ``table`` of :mod:`adatosk.experiments.grid`.

    Args:
        study: the runs.
        table: the table.
        partial: leave out claims whose runs are missing.

    Returns:
        one row per comparison: ``id`` of the claim, ``kind`` (better, negligible, count, data set), ``what``, ``ours``,
        ``low`` and ``high`` (NaN without an interval), ``repeats``, ``p``, ``verdict`` and ``why``.

    Raises:
        FileNotFoundError: naming the row and the repeat of a missing run, unless ``partial``.
    """
    rows = []
    for claim in paper.CLAIMS:
        judged = JUDGED[claim.id]
        if table is None or getattr(judged, "table", None) == table:
            try:
                found = judged.findings(claim, study)
            except FileNotFoundError:
                if not partial:
                    raise
                continue
            rows += [(claim.id, judged.kind, one.what, *astuple(one.ours), one.verdict, one.why) for one in found]
    columns = ["id", "kind", "what", "ours", "low", "high", "repeats", "p", "verdict", "why"]
    return pd.DataFrame(rows, columns=columns)


def verdicts(
    base: RunConfig, results: Path, at_most: int | None = None, table: str | None = None, partial: bool = False
) -> pd.DataFrame:
    """A verdict for every claim of the paper, or for those on rows of one ``table`` of :mod:`adatosk.experiments.grid`.

    Args:
        base: the profile's configuration, as ``Workspace.config``.
        results: its results, as ``Workspace.places.results``.
        at_most: largest number of repeats of each row to use.
        table, partial: see :func:`comparisons`.

    Returns:
        one row per claim: the columns of :func:`adatosk.paper.claims`; ``kind``; ``ours_low`` and ``ours_high``, the
        smallest and the largest of our numbers; ``low`` and ``high``, the outermost bounds of their intervals; ``p``,
        the largest; ``verdict``; ``why``, each comparison in words.

    Raises:
        FileNotFoundError: see :func:`comparisons`.
    """
    found = comparisons(Study(base, results, at_most), table, partial).groupby("id", sort=False)
    ours = found.agg(
        kind=("kind", "first"),
        ours_low=("ours", "min"),
        ours_high=("ours", "max"),
        low=("low", "min"),
        high=("high", "max"),
        p=("p", "max"),
        verdict=("verdict", combined),
        why=("why", lambda reasons: "; ".join(dict.fromkeys(reasons))),
    )
    return paper.claims().merge(ours, left_on="id", right_index=True)


def contradicted(judged: pd.DataFrame) -> str:
    """Which claims are not reproduced, in words; that no claim has enough runs to say, where that is so.

    Args:
        judged: from :func:`verdicts`.
    """
    if (judged["verdict"] == "too few runs").all():
        return "too few runs to say"
    return ", ".join(judged["id"][judged["verdict"] == "not reproduced"]) or "none"
