"""Every number of the paper beside ours: settings, counted costs, scores, and the differences between a table's rows.

Scores on a licensed data set can only be compared on that set; on other data ours stay empty. What can still be
compared there are differences between the rows of one table: theirs in points on their set, ours in points on the
profile's data.
"""

from dataclasses import astuple
from math import nan
from typing import Any, Literal

import pandas as pd

from adatosk import paper
from adatosk.config import RunConfig
from adatosk.cost.operations import table1_cost, table2_cost
from adatosk.datasets import load_card
from adatosk.experiments import grid
from adatosk.experiments.statistics import NOTHING, Interval, interval, paired, score_interval, side
from adatosk.experiments.verdicts import PAPER_ROWS, Study
from adatosk.presets import PROFILES

Direction = Literal["same", "opposite", "undecided", "too few runs", "impossible here"]

# The row that the other rows of a table are compared with.
REFERENCE = {"table1": grid.WITHOUT, "table2": grid.cell_name(0.7, 2), "table3": grid.BOTH, "table4": "l1"}
COLUMNS = ["table", "row", "quantity", "paper", "ours", "low", "high", "repeats"]


def reported(table: str) -> pd.DataFrame:
    """The paper's ``uar`` and ``war`` on DFEW in percent, by the names of the rows of a table of ``grid``."""
    if table == "table1":
        rows = paper.table1().set_index("method").loc[list(PAPER_ROWS.values()), ["dfew_uar", "dfew_war"]]
        return rows.set_axis(list(PAPER_ROWS)).set_axis(["uar", "war"], axis=1)
    if table == "table2":
        cells = paper.table2()
        names = [grid.cell_name(cell.mask_ratio, cell.r) for cell in cells.itertuples()]
        return cells.assign(uar=nan).set_index(pd.Index(names))[["uar", "war"]]
    rows = {"table3": paper.table3, "table4": paper.table4}[table]()
    return rows.set_index(rows.columns[0])[["uar", "war"]]


def settings(base: RunConfig) -> pd.DataFrame:
    """The settings that the paper states, one row per setting.

    Returns:
        ``paper``; ``profile paper`` and ``this profile``, the settings of these profiles or, for data sets, those on
        their cards; missing if a run does not choose the setting; ``unit`` and ``place``.
    """
    rows = []
    for name, said in paper.SETTINGS.items():
        both = [{**_chosen(config), **_described()}.get(name) for config in (PROFILES["paper"], base)]
        rows.append((name, said.value, *both, said.unit, f"{paper.SOURCE}, {said.place}"))
    columns = ["setting", "paper", "profile paper", "this profile", "unit", "place"]
    return pd.DataFrame(rows, columns=columns).set_index("setting")


def _chosen(config: RunConfig) -> dict[str, Any]:
    model, mask = config.model, config.model.required_soft_mask
    parts = (mask, model, config.data, config.train)
    chosen = {key: value for part in parts for key, value in part.model_dump().items()}
    is_base = (model.width, model.depth, model.patch_size) == (768, 12, 16)
    return chosen | {
        "top_r": mask.excluded_per_step / model.tubelet,
        "backbone": f"ViT-B/16 ({model.decoder_width}-dim)" if is_base else f"{model.depth} blocks of {model.width}",
        # Not configurable.
        "head_layers": 2,
        "optimizer": "AdamW",
    }


def _described() -> dict[str, int]:
    """Numbers of clips and classes of the licensed sets, from their cards; the test folds partition a set."""
    found = {}
    for name in paper.SETS:
        card = load_card(name)
        clips = sum(part.clips for part in card.expected if part.split == "test" or part.fold is None)
        found |= {f"{name}_clips": clips, f"{name}_classes": len(card.classes)}
    return found


def costs() -> pd.DataFrame:
    """The costs of Tables 1 and 2 beside counts of the paper's own model; rivals that are not built here are empty.

    Returns:
        ``COLUMNS``; VideoMAE is counted at 160 pixels, the size that its reported cost fits.
    """
    counted = table1_cost().sort_values("image_size").drop_duplicates("paper_row").set_index("paper_row")
    rows = []
    for method in paper.table1().itertuples():
        there = counted.loc[method.method] if method.method in counted.index else {}
        rows.append(
            ("table1", method.method, "parameters (M)", method.parameters_m, there.get("classification_m", nan))
        )
        rows.append(("table1", method.method, "FLOPs (G)", method.flops_g, there.get("gmacs", nan)))
    for cell in table2_cost().itertuples():
        name = grid.cell_name(cell.mask_ratio, cell.r)
        rows.append(("table2", name, "FLOPs (G)", cell.paper_gflops, cell.gmacs))
    return pd.DataFrame(rows, columns=COLUMNS[:5])


def scores(study: Study) -> pd.DataFrame:
    """The scores of Tables 1 to 4; ours, with their interval, where the profile runs on the set in question.

    Returns:
        ``COLUMNS``, one row per score in the paper.
    """
    rows = []
    ours = {theirs: name for name, theirs in PAPER_ROWS.items()}
    for method in paper.table1().to_dict("records"):
        for dataset in paper.SETS:
            for score in ("uar", "war"):
                found = _score(study, "table1", ours.get(method["method"]), dataset, score)
                quantity = f"{score.upper()} on {dataset}"
                rows.append(("table1", method["method"], quantity, method[f"{dataset}_{score}"], *astuple(found)[:4]))
    for table in ("table2", "table3", "table4"):
        for name, row in reported(table).iterrows():
            for score in ("uar", "war"):
                found = _score(study, table, name, "dfew", score)
                rows.append((table, name, f"{score.upper()} on dfew", row[score], *astuple(found)[:4]))
    return pd.DataFrame(rows, columns=COLUMNS).dropna(subset="paper", ignore_index=True)


def _score(study: Study, table: str, row: str | None, dataset: str, score: str) -> Interval:
    if study.data != dataset:
        return NOTHING
    found = study.scores(table).query("row == @row and protocol == @study.protocol")[score]
    return score_interval(found) if len(found) else NOTHING


def differences(study: Study) -> pd.DataFrame:
    """The paper's differences between each row of a table and its reference, on DFEW, beside ours paired by repeat.

    Returns:
        ``COLUMNS``, in points, ``row`` being "row less reference"; ``p`` of the paired t-test against 0; and
        ``direction``: whether our 95 % interval lies on the ``same`` side of 0 as the paper's difference, on the
        ``opposite`` one, or contains 0 (``undecided``); ``too few runs`` for an interval; ``impossible here`` if a row
        does not fit the profile's sizes.
    """
    rows = []
    for table, reference in REFERENCE.items():
        theirs, ours = reported(table), study.scores(table)
        for name in theirs.index.drop(reference):
            for score in ("uar", "war"):
                said = theirs.at[name, score] - theirs.at[reference, score]
                there = {name, reference} <= set(ours["row"])
                between = interval(paired(ours, name, reference, score, study.protocol)) if there else NOTHING
                what = (table, f"{name} less {reference}", f"{score.upper()}, points")
                rows.append((*what, said, *astuple(between), direction(said, between)))
    table = pd.DataFrame(rows, columns=[*COLUMNS, "p", "direction"])
    return table.dropna(subset="paper", ignore_index=True)


def direction(said: float, ours: Interval) -> Direction:
    """Whether our interval agrees with the sign of a difference that the paper reports."""
    if ours.count == 0:
        return "impossible here"
    found = side(ours)
    if found not in ("above", "below"):
        return found
    return "same" if (found == "above") == (said > 0) else "opposite"


def every_number(study: Study) -> pd.DataFrame:
    """Costs, scores and differences in one table of ``COLUMNS``, ours empty where nothing was counted or measured."""
    return pd.concat([costs(), scores(study), differences(study)[COLUMNS]], ignore_index=True).dropna(subset="paper")
