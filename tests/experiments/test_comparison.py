"""What make reproduce says about runs and tables made here, beside published ones."""

import json
import shutil

import pandas as pd
import pytest

from adatosk.experiments import comparison
from adatosk.experiments.runs import headline_configs
from adatosk.utils.files import sealed, write_json
from adatosk.utils.project import PUBLISHED
from adatosk.utils.provenance import read_metrics
from adatosk.workspace import adopt_published

RUN = next(iter(headline_configs("demo")))


@pytest.fixture
def outputs(tmp_path):
    """The published runs and a table of theirs, one of the runs as if it had been trained here."""
    folder = tmp_path / "outputs"
    adopt_published("demo", outputs=folder)
    (folder / "demo" / "runs" / RUN / "checkpoints" / "last").mkdir(parents=True)
    (folder / "demo" / "tables").mkdir()
    shutil.copy(PUBLISHED / "demo" / "tables" / "headline.csv", folder / "demo" / "tables")
    return folder


def change(outputs, **provenance: str) -> dict:
    """Give the run another provenance; returns its metrics, to be changed further and written with :func:`write`."""
    metrics = read_metrics(outputs / "demo" / "runs" / RUN / "metrics.json")
    metrics["train_seconds"] = 1.0
    metrics["provenance"] |= provenance
    return metrics


def write(outputs, metrics: dict) -> None:
    write_json(outputs / "demo" / "runs" / RUN / "metrics.json", sealed(metrics))


def test_equal_numbers_are_reproduced_to_the_last_bit_whatever_the_clock_says(outputs):
    write(outputs, change(outputs, device="another"))
    said = comparison.report("demo", outputs=outputs)
    assert "1 of its runs were trained here" in said and said.endswith("Reproduced to the last bit.")
    assert "losses and learning rates: 51 of 51" in said and "predictions: 1680 of 1680" in said


def test_weights_are_compared_where_the_published_run_recorded_them(outputs):
    metrics = change(outputs) | {"weights": {"last": "0" * 64}}
    published = outputs.parent / "published"
    shutil.copytree(outputs, published)
    write(published, {name: value for name, value in metrics.items() if name != "weights"})  # as the earliest runs
    write(outputs, metrics)
    assert "files of weights" not in comparison.report("demo", published, outputs)
    write(published, metrics)
    metrics["weights"]["last"] = "1" * 64
    write(outputs, metrics)
    said = comparison.report("demo", published, outputs)
    assert "files of weights: 0 of 1 equal" in said and "Reproduced" not in said


def test_weights_are_compared_with_those_that_ship_where_the_run_recorded_none(outputs):
    ships = json.loads((PUBLISHED / "demo" / "weights" / "with-soft-mask" / "metrics.json").read_text())
    write(outputs, change(outputs) | {"weights": ships["weights"]})
    said = comparison.report("demo", outputs=outputs)
    assert "files of weights: 2 of 2 equal" in said and said.endswith("Reproduced to the last bit.")
    write(outputs, change(outputs) | {"weights": ships["weights"] | {"last": "0" * 64}})
    assert "files of weights: 1 of 2 equal" in comparison.report("demo", outputs=outputs)


def test_a_last_bit_that_differs_is_counted_and_explained(outputs):
    metrics = change(outputs, instructions="AVX2")
    metrics["last"]["views_1"]["war"] += 1e-12
    write(outputs, metrics)
    found = comparison.compare("demo", outputs=outputs)
    assert found.loc[found["published"] != found["here"], "what"].tolist() == ["last.views_1.war"]
    said = comparison.report("demo", outputs=outputs)
    there = read_metrics(PUBLISHED / "demo" / "runs" / RUN / "metrics.json")["provenance"]["instructions"]
    assert "Reproduced" not in said and f"instructions {there} there, AVX2 here" in said
    assert "no more than two seeds do" in said


def test_a_difference_beyond_the_spread_over_seeds_says_so(outputs):
    metrics = change(outputs)
    metrics["last"]["views_1"]["war"] -= 20
    write(outputs, metrics)
    said = comparison.report("demo", outputs=outputs)
    assert "table1-with-soft-mask-seed0" in said and "-20.0" in said and "more than two seeds do by chance" in said
    assert said.endswith("nothing that the runs record differs.")


def test_a_cell_of_a_table_that_differs_is_named(outputs):
    path = outputs / "demo" / "tables" / "headline.csv"
    published = pd.read_csv(path).at[0, "views_1_uar"]
    path.write_text(path.read_text().replace(str(published), "66.8", 1))
    assert f"tables/headline.csv: 1 cells differ, such as row 0, views_1_uar: {published:g} there, 66.8 here" in (
        comparison.report("demo", outputs=outputs)
    )


def test_copies_say_nothing_about_training(outputs):
    shutil.rmtree(outputs / "demo" / "runs" / RUN / "checkpoints")
    assert "No run was trained here" in comparison.report("demo", outputs=outputs)


def test_without_published_results_there_is_nothing_to_compare_with(outputs, tmp_path):
    assert "nothing to compare with" in comparison.report("demo", tmp_path / "none", outputs)
