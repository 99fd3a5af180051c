"""What adatosk report --publish copies to results/, and what it leaves alone."""

import json
import shutil

import pytest

from adatosk.experiments import report
from adatosk.experiments.grid import configs, headline_configs
from adatosk.experiments.publication import publish
from adatosk.utils.project import PUBLISHED
from adatosk.workspace import adopt_published

FIRST, SECOND = headline_configs("demo")
THIRD = next(run_id for run_id in configs("demo") if run_id not in (FIRST, SECOND))


@pytest.fixture
def project(tmp_path):
    """A project with the published runs, of which the pair was trained again: the first one with the same numbers."""
    shutil.copytree(PUBLISHED / "demo" / "runs", tmp_path / "results" / "demo" / "runs")
    adopt_published("demo", tmp_path / "results", tmp_path / "outputs")
    (tmp_path / "outputs" / "demo" / "runs" / THIRD / "checkpoints").mkdir()  # in training: its scores are still a copy
    (tmp_path / "outputs" / "demo" / "runs" / THIRD / "config.json").write_text("{}")
    for name in (FIRST, SECOND):
        folder = tmp_path / "outputs" / "demo" / "runs" / name
        (folder / "checkpoints" / "last").mkdir(parents=True)
        (folder / "checkpoints" / "last" / "model.safetensors").touch()
        metrics = json.loads((folder / "metrics.json").read_text()) | {"train_seconds": 1.0}
        metrics["last"]["views_1"]["war"] += float(name == SECOND)
        (folder / "metrics.json").write_text(json.dumps(metrics))
    for page in ("README.md", "RESULTS.md"):
        (tmp_path / page).write_text(f"{report.BEGIN}\n{report.END}\n")
    return tmp_path


def test_runs_with_new_numbers_are_published_and_others_keep_where_they_were_computed(project):
    published, outputs = project / "results", project / "outputs"
    written = publish("demo", published, outputs, project)
    runs = {path.parent.name for path in written if path.name == "metrics.json"}
    assert runs == {SECOND} and published / "demo" / "runs" / THIRD / "config.json" not in written
    assert json.loads((published / "demo" / "runs" / SECOND / "metrics.json").read_text())["train_seconds"] == 1.0
    assert not list(published.rglob("*.safetensors"))
    assert project / "README.md" in written and "| seed 0 " in (project / "RESULTS.md").read_text()
    assert published / "demo" / "tables" / "seeds.csv" in written
    assert publish("demo", published, outputs, project) == []
