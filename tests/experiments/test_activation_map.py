from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F

from adatosk import create_model
from adatosk.experiments import activation_map, grid
from adatosk.experiments.activation_map import CANDIDATES, chosen, differences, order, token_statistics
from adatosk.experiments.grid import AGNOSTIC, AS_PUBLISHED, BOTH
from adatosk.manifests import manifest_of
from adatosk.presets import PROFILES
from adatosk.tokens import tube_mask
from adatosk.utils.files import write_json
from adatosk.utils.project import Places
from adatosk.workspace import Workspace


def scored(**wars) -> pd.DataFrame:
    """Scores of rows over six seeds: each row's mean by name, and the same spread for all."""
    noise = np.array([-0.3, 0.1, 0.2, -0.1, 0.4, -0.3])
    return pd.concat(
        [
            pd.DataFrame({"row": row, "repeat": range(6), "protocol": "views_1", "war": war + (1 + place) * noise})
            for place, (row, war) in enumerate(wars.items())
        ],
        ignore_index=True,
    )


CHANGES = (AS_PUBLISHED, *CANDIDATES)
PUBLISHED, LETTER, MEAN = (f"{BOTH}, {change}" for change in CHANGES)


@pytest.mark.parametrize(
    ("sparse", "lifelike", "choice"),
    [
        ((70, 75, 69), (40, 44, 39), CANDIDATES[0]),
        ((70, 69, 75), (40, 39, 44), CANDIDATES[1]),
        ((70, 75, 78), (40, 44, 47), CANDIDATES[1]),
        ((70, 75, 78), (40, 44, 44), CANDIDATES[0]),
        ((70, 75, 69), (40, 40, 44), None),
        ((70, 70, 70), (40, 44, 47), None),
    ],
)
def test_the_default_changes_by_the_rule_alone(sparse, lifelike, choice):
    tables = {
        motion: scored(**dict(zip((PUBLISHED, LETTER, MEAN), wars, strict=True)))
        for motion, wars in {"sparse": sparse, "lifelike": lifelike}.items()
    }
    assert chosen(tables) == choice


def test_the_order_of_table_3_is_judged_under_each_normalisation():
    table = scored(
        **{AGNOSTIC: 74, f"CS (M), {AS_PUBLISHED}": 66},
        **{f"CS (A), {change}": war for change, war in zip(CHANGES, (55, 60, 61), strict=True)},
        **{f"CS (A+M), {change}": war for change, war in zip(CHANGES, (61, 68, 69), strict=True)},
        **{PUBLISHED: 70, LETTER: 73.9, MEAN: 78, f"CS (M), {CANDIDATES[1]}": 67},
    )
    found = order(table).set_index(["id", "what"])
    both, semantic = f"{BOTH} less {AGNOSTIC}", "CS (A+M) less CS (M)"
    verdicts = {change: found.loc[(change, both), "verdict"] for change in found.index.unique("id")}
    assert list(verdicts.values()) == ["not reproduced", "undecided", "reproduced"]
    # M alone was not run with constant bounds.
    assert found.xs(semantic, level="what")["ours"].round(6).to_dict() == {AS_PUBLISHED: -5, CANDIDATES[1]: 2}
    assert found.xs("CS (A+M) less CS (A)", level="what")["ours"].round(6).tolist() == [6, 8, 8]
    assert found.xs(f"{BOTH} less CS (A+M)", level="what")["ours"].round(6).tolist() == [9, 5.9, 9]
    assert (found["repeats"] == 6).all() and len(found) == 11


def test_a_change_is_compared_with_its_own_mask_and_with_the_class_agnostic_one():
    table = scored(
        **{f"CS (A), {AS_PUBLISHED}": 55, AGNOSTIC: 74, PUBLISHED: 70, "CS (A), over the mean": 64, MEAN: 76}
    )
    found = differences(table).set_index(["mask", "change"])
    assert list(found.index) == [("CS (A)", "over the mean"), (BOTH, "over the mean")]
    assert found["difference"].round(6).tolist() == [9.0, 6.0]
    assert found["above_agnostic"].round(6).tolist() == [-10.0, 2.0]
    assert found["side"].tolist() == ["above", "above"] and found["agnostic_side"].tolist() == ["below", "above"]
    assert found["repeats"].tolist() == [6, 6]


def test_every_row_differs_from_its_mask_in_what_its_name_says():
    rows = {row.name: row for row in activation_map.rows(PROFILES["demo"])}
    for name, row in rows.items():
        mask, change = grid.split_row(name)
        if change not in ("", AS_PUBLISHED):
            published = rows[f"{mask}, {AS_PUBLISHED}"]
            expected = published.config.change(model={"soft_mask": grid.ACTIVATIONS[change][0]})
            assert row.config == expected != published.config
            assert row.repeats <= published.repeats


def test_the_profile_has_the_normalisation_that_the_rule_chose():
    rows = {row.name: row.config for row in grid.activation_map(PROFILES["demo"])}
    parts = [row for row in grid.table3(PROFILES["demo"]) if row.name not in ("none", AGNOSTIC)]
    assert len(parts) == 6
    for row in parts:
        assert row.config == rows[f"{row.name}, over the mean"]
        assert rows[f"{row.name}, {AS_PUBLISHED}"].model.soft_mask.scaling == "min_max"


MASKS = [
    {"agnostic": False, "semantic": "A", "excluded_per_step": 0},
    {"agnostic": False, "semantic": "A", "excluded_per_step": 0, "scaling": "mean"},
    {},
]


@pytest.mark.parametrize("soft_mask", MASKS, ids=str)
def test_token_statistics_are_those_of_a_loop(soft_mask):
    torch.manual_seed(0)
    model = create_model("adatosk_tiny", soft_mask=soft_mask).double().train()
    config, labels = model.config, torch.tensor([0, 3])
    video = torch.randn(2, 3, 16, config.image_size, config.image_size, dtype=torch.float64)
    visible = tube_mask(2, config.patches, config.mask_ratio)
    found = token_statistics(model, video, labels, visible)
    assert model.training and all(part.grad is None for part in model.parameters())

    model.eval()
    tokens = []
    model.encoder.norm.register_forward_hook(lambda *call: tokens.append(call[2]))
    output = model(video, visible, reconstruct=False)
    tokens[0].retain_grad()
    F.cross_entropy(output.logits, labels).backward()
    activations, spreads, shares, evens = [], [], [], []
    for clip, gradient, kept, weights in zip(
        tokens[0].detach(), tokens[0].grad, output.soft_mask.kept, output.soft_mask.semantic.detach(), strict=True
    ):
        there = [(t, s) for t in range(kept.shape[0]) for s in range(kept.shape[1]) if kept[t, s]]
        values = np.array([sum(abs(float(x)) for x in clip[place]) for place in there])
        power = np.array([sum(float(x) ** 2 for x in gradient[place]) for place in there])
        excluded = sum(float(gradient[t, s].square().sum()) for t, s in (~kept).nonzero().tolist())
        order = np.argsort([float(weights[place]) for place in there])
        activations.append(values.mean())
        spreads.append(values.std() / values.mean())
        shares.append((power[order[0]] + power[order[-1]]) / (power.sum() + excluded))
        evens.append(2 / len(there))
    expected = {"activation": activations, "spread": spreads, "extremes": shares, "even": evens}
    assert found == pytest.approx({name: np.mean(values) for name, values in expected.items()})


def test_a_mask_without_a_semantic_part_has_no_extremes():
    model = create_model("adatosk_tiny", soft_mask={"semantic": "none", "excluded_per_step": 0})
    video = torch.randn(1, 3, 16, 32, 32)
    with pytest.raises(ValueError, match="no class-semantic mask"):
        token_statistics(model, video, torch.tensor([0]), tube_mask(1, 16, 0.4))


def test_a_kind_of_motion_is_beside_the_other_once_the_rule_can_be_applied(tmp_path):
    own = scored(none=1)
    places = Places(tmp_path, tmp_path / "demo", tmp_path)
    workspace = Workspace("demo", PROFILES["demo"], places)
    assert activation_map.by_motion(replace(workspace, profile="smoke"), own) == {"smoke": own}
    base = PROFILES["demo-lifelike"]
    digest = manifest_of(base).digest

    def finish(row, config):
        metrics = {"last": {"views_1": {"uar": 30.0, "war": 30.0 + config.seed}}, "train_seconds": 1.0}
        write_json(tmp_path / "demo-lifelike" / "runs" / config.run_id(digest) / "metrics.json", metrics)

    *first, last = [row for row in activation_map.rows(base) if row.name in activation_map.DECIDING]
    for row in first:
        for config in grid.repeated(row):
            finish(row, config)
    assert list(activation_map.by_motion(workspace, own, tmp_path)) == ["sparse"]
    for config in grid.repeated(last):
        finish(last, config)
    unfinished = next(row for row in activation_map.rows(base) if row.name == f"CS (A), {AS_PUBLISHED}")
    finish(unfinished, unfinished.config)
    found = activation_map.by_motion(workspace, own, tmp_path)
    assert found["sparse"] is own
    assert set(found["lifelike"]["row"]) == set(activation_map.DECIDING) and found["lifelike"]["war"].max() == 35
    assert activation_map.chosen({"lifelike": found["lifelike"]}) is None
