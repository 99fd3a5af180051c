"""The paper's claims with their verdicts, as tables for the pages and the notebooks."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from adatosk import paper
from adatosk.config import RunConfig
from adatosk.experiments import grid
from adatosk.experiments.verdicts import JUDGED, verdicts
from adatosk.presets import EMBEDDED, PROFILES

TITLE = (
    "The paper's claims, with its own numbers and ours. Claims about scores are judged by their direction only, on "
    "this data: *reproduced* when the 95 % interval of our differences lies on the claimed side of 0, *not "
    "reproduced* when it lies on the other one, *undecided* when it contains 0. Claims about cost are judged by counts "
    "of the paper's own model. A claim about other methods' scores *needs* the licensed set that it is about:"
)
SIDE_BY_SIDE_TITLE = (
    "The claims about accuracy, on faces that move sparsely, also as in Eq. 11 to the letter, on faces that move as "
    "real ones do, and on the latter at the paper's token geometry; empty where runs are missing, and a column without "
    "any is left out:"
)
# Where the comparison behind a verdict is made, by the table of its rows or its kind.
_NOTEBOOKS = {
    "table1": "06_ablation_soft_mask",
    "table2": "08_ablation_hard_mask_and_exclusion",
    "table3": "06_ablation_soft_mask",
    "table4": "07_ablation_distance",
    "count": "05_efficiency",
    "data set": "11_paper_vs_ours",
}


def claims_table(
    profile: str, results: Path, at_most: int | None = None, notebooks: str = "notebooks/"
) -> pd.DataFrame:
    """The paper's claims with its numbers, ours and a verdict; those whose runs are missing are left out.

    Args:
        at_most: largest number of repeats of each row to use.
        notebooks: where links to notebooks begin.

    Returns:
        one row per claim: ``claim``, its ``place``, ``paper``, ``here``, ``verdict`` and ``notebook``, as Markdown.
    """
    rows = []
    for one in verdicts(PROFILES[profile], results, at_most, partial=True).itertuples():
        name = _NOTEBOOKS[getattr(JUDGED[one.id], "table", one.kind)]
        here = _span(one.ours_low, one.ours_high, _within(one), one.unit)
        link = f"[{name[:2]}]({notebooks}{name}.ipynb)"
        place, said = one.place.split(", ", 2)[1], _span(one.table_low, one.table_high, "", one.unit)
        rows.append((one.text, place, said, here, one.verdict, link))
    return pd.DataFrame(rows, columns=["claim", "place", "paper", "here", "verdict", "notebook"]).set_index("claim")


def in_words(judged: pd.DataFrame) -> str:
    """Each claim with its verdict and where the paper makes it, and below it its comparisons, a line each.

    Args:
        judged: from :func:`adatosk.experiments.verdicts.verdicts`.
    """
    lines = []
    for claim in judged.itertuples():
        lines.append(f"{claim.verdict.upper()}: {claim.text} ({claim.place.partition(', ')[2]})")
        lines += [f"  {why}" for why in claim.why.split("; ")]
    return "\n".join(lines)


def about_accuracy(base: RunConfig, results: Path) -> pd.DataFrame:
    """The rows of :func:`adatosk.experiments.verdicts.verdicts` that are about scores of a profile's own runs."""
    judged = verdicts(base, results, partial=True)
    return judged[judged["kind"].isin(["better", "negligible"])]


def studied(profile: str, results: Path) -> Iterator[tuple[str, RunConfig, Path]]:
    """What claims about accuracy are judged on: each kind of clips, and those of profile demo also as in Eq. 11.

    Args:
        profile: one of ``EMBEDDED``.
        results: its results; those of the other kinds are in the folders beside it.

    Yields:
        its name, the configuration that the tables start from, and its results.
    """
    for kind, name in EMBEDDED.items():
        base, folder = PROFILES[name], results if name == profile else results.parent / name
        yield kind, base, folder
        if grid.tables_as_published(base):
            yield f"{kind}, {grid.AS_PUBLISHED}", grid.as_published(base), folder


def side_by_side(profile: str, results: Path) -> pd.DataFrame | None:
    """The claims about accuracy on each kind of clips of the embedded benchmark, and with Eq. 11 as published.

    Args:
        profile: one of ``EMBEDDED``; otherwise there is nothing to compare.
        results: its results; those of the other kinds are in the folders beside it.

    Returns:
        one row per claim that has been judged on two kinds at least: ``claim``, and for each kind the points of WAR
        with their interval and the verdict, as Markdown, empty where runs are missing; ``None`` if there is none.
    """
    if profile not in EMBEDDED.values():
        return None
    parts = {}
    for kind, base, folder in studied(profile, results):
        judged = about_accuracy(base, folder).set_index("text")
        points = [_span(one.ours_low, one.ours_high, _within(one), "") for one in judged.itertuples()]
        if len(judged):
            parts[f"{kind}, points"] = pd.Series(points, judged.index)
            parts[f"{kind}, verdict"] = judged["verdict"]
    # In the order of the claims: the index of the union would be sorted.
    claims = [claim.text for claim in paper.CLAIMS]
    table = pd.DataFrame(parts).dropna(thresh=4).fillna("").rename_axis("claim")
    return None if table.empty else table.loc[[text for text in claims if text in table.index]]


def _within(one: Any) -> str:
    return "" if pd.isna(one.low) else f" [{one.low:z.1f}, {one.high:z.1f}]"


def _span(low: float, high: float, within: str, unit: str) -> str:
    if pd.isna(low):
        return ""
    ends = dict.fromkeys(f"{value:z.1f}" if abs(value) >= 1 else f"{value:z.2f}" for value in (low, high))
    return f"{' to '.join(ends)}{within} {unit}".rstrip()
