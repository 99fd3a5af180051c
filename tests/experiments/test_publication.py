"""What adatosk report --publish copies to results/, and what it leaves alone."""

import json
import shutil

import pytest

from adatosk.experiments import report
from adatosk.experiments.publication import publish
from adatosk.experiments.runs import configs, headline_configs
from adatosk.experiments.shipping import ship
from adatosk.utils.files import sealed, write_json
from adatosk.utils.project import PUBLISHED
from adatosk.utils.provenance import file_digest, read_metrics
from adatosk.workspace import adopt_published

FIRST, SECOND = headline_configs("demo")
LATER = ("weights", "files", "sha256")
THIRD = next(run_id for run_id in configs("demo") if run_id not in (FIRST, SECOND))


@pytest.fixture
def project(tmp_path):
    """A project with the published runs, of which the pair was trained again: the first one with the same numbers."""
    published = tmp_path / "results" / "demo" / "runs"
    shutil.copytree(PUBLISHED / "demo" / "runs", published)
    # As the earliest runs were: which weights the scores were measured with is not recorded.
    unrecorded = {k: v for k, v in read_metrics(published / FIRST / "metrics.json").items() if k not in LATER}
    write_json(published / FIRST / "metrics.json", unrecorded)
    adopt_published("demo", tmp_path / "results", tmp_path / "outputs")
    (tmp_path / "outputs" / "demo" / "runs" / THIRD / "checkpoints").mkdir()  # in training: its scores are still a copy
    (tmp_path / "outputs" / "demo" / "runs" / THIRD / "config.json").write_text("{}")
    for name in (FIRST, SECOND):
        folder = tmp_path / "outputs" / "demo" / "runs" / name
        (folder / "checkpoints" / "last").mkdir(parents=True)
        (folder / "checkpoints" / "last" / "model.safetensors").touch()
        metrics = read_metrics(folder / "metrics.json") | {"train_seconds": 1.0}
        metrics["last"]["views_1"]["war"] += float(name == SECOND)
        write_json(folder / "metrics.json", sealed(metrics))
    # The first one has its weights still, and says which; what the second one's scores belong to is not known.
    first = tmp_path / "outputs" / "demo" / "runs" / FIRST
    digest = file_digest(first / "checkpoints" / "last" / "model.safetensors")
    (first / "checkpoints" / "last" / "config.json").write_text("{}")
    metrics = read_metrics(first / "metrics.json") | {"weights": {"last": digest, "best_on_test": digest}}
    write_json(first / "metrics.json", sealed(metrics))
    for page in ("README.md", "RESULTS.md"):
        (tmp_path / page).write_text(f"{report.BEGIN}\n{report.END}\n")
    return tmp_path


def test_the_weights_that_the_published_scores_were_measured_with_ship_once(project):
    published, outputs = project / "results", project / "outputs"
    here, target = outputs / "demo" / "runs" / FIRST, published / "demo" / "weights" / "with-soft-mask"
    written = ship(published, outputs)
    assert written == [target / name for name in ("config.json", "metrics.json", "model.safetensors", "README.md")]
    assert (target / "metrics.json").read_bytes() == (here / "metrics.json").read_bytes()
    assert list(published.rglob("*.safetensors")) == [target / "model.safetensors"]
    assert ship(published, outputs) == []
    # Weights that are trained once more with the same scores leave those that ship alone; damaged ones are not copied.
    content = read_metrics(here / "metrics.json") | {"train_seconds": 2.0}
    write_json(here / "metrics.json", sealed(content))
    assert ship(published, outputs) == []
    shutil.rmtree(target)
    (here / "checkpoints" / "last" / "model.safetensors").write_bytes(b"damaged")
    assert ship(published, outputs) == []


def test_weights_with_the_same_scores_replace_others_only_if_they_are_those_that_were_measured(project):
    published, outputs = project / "results", project / "outputs"
    here, target = outputs / "demo" / "runs" / FIRST, published / "demo" / "weights" / "with-soft-mask"
    assert len(ship(published, outputs)) == 4
    record = published / "demo" / "runs" / FIRST / "metrics.json"
    (here / "checkpoints" / "last" / "model.safetensors").write_bytes(b"others")
    others = file_digest(here / "checkpoints" / "last" / "model.safetensors")
    for measured, replaced in (("0" * 64, False), (others, True)):
        scores = read_metrics(record)
        write_json(record, scores | {"weights": {"last": measured, "best_on_test": measured}})
        write_json(here / "metrics.json", sealed(scores | {"weights": {"last": others, "best_on_test": others}}))
        assert bool(ship(published, outputs)) == replaced
    assert (target / "model.safetensors").read_bytes() == b"others"


def test_runs_with_new_numbers_are_published_and_others_keep_where_they_were_computed(project):
    published, outputs = project / "results", project / "outputs"
    written = publish("demo", published, outputs, project)
    runs = {path.parent.name for path in written if path.match("runs/*/metrics.json")}
    assert runs == {SECOND} and published / "demo" / "runs" / THIRD / "config.json" not in written
    assert json.loads((published / "demo" / "runs" / SECOND / "metrics.json").read_text())["train_seconds"] == 1.0
    assert project / "README.md" in written and "| seed 0 " in (project / "RESULTS.md").read_text()
    assert published / "demo" / "tables" / "seeds.csv" in written
    assert publish("demo", published, outputs, project) == []
