"""The Snakefile: what it would do in a fresh clone, when everything is there, and when one run is not."""

import os
import shutil
import subprocess
import sys

import pytest

from adatosk.experiments.grid import configs, headline_configs, weighed
from adatosk.utils.project import PROJECT
from adatosk.workspace import saved_by


def dry_run(folder, profile: str, grid: str) -> subprocess.CompletedProcess:
    """In a tree that lies at ``folder``."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile"), "--directory", str(folder)]
    command += ["--dry-run", "--nolock", "--cores", "1", "--rerun-triggers", "mtime"]
    command += ["--config", f"profile={profile}", f"grid={grid}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def planned(folder, grid: str = "pair") -> str:
    """What a dry run of profile demo says."""
    done = dry_run(folder, "demo", grid)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def clone(tmp_path):
    """Notebooks and results as they come with the repository, results newer than all else."""
    for name in ("notebooks", "results/demo/notebooks"):
        shutil.copytree(PROJECT / name, tmp_path / name)
    for path in (tmp_path / "results").rglob("*.ipynb"):
        os.utime(path)
    return tmp_path


def test_a_fresh_clone_trains_the_pair_although_results_came_with_it(clone):
    assert "rule train" in planned(clone)


def finish(clone, run_ids, weights: bool) -> None:
    """Runs that are done, older than the notebooks that read them."""
    for run_id in run_ids:
        folder = clone / "results" / "demo" / "runs" / run_id
        (folder / "checkpoints" / "last").mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").touch()
        if weights:
            (folder / "checkpoints" / "last" / "model.safetensors").touch()
    for path in (clone / "notebooks").glob("*.ipynb"):
        results = clone / "results" / "demo"
        for made in (results / "notebooks" / path.name, *(results / name for name in saved_by(path, rendered=True))):
            made.parent.mkdir(exist_ok=True)
            made.touch()
            os.utime(made)


def test_nothing_is_left_to_do_when_weights_and_notebooks_are_there(clone):
    finish(clone, headline_configs("demo"), weights=True)
    assert "Nothing to be done" in planned(clone)


def test_a_grid_whose_scores_are_there_is_not_trained_again(clone):
    finish(clone, configs("demo"), weights=False)
    finish(clone, headline_configs("demo") | weighed("demo"), weights=True)
    assert "Nothing to be done" in planned(clone, "all")


def test_without_one_run_just_that_one_is_trained(clone):
    finish(clone, configs("demo"), weights=False)
    finish(clone, headline_configs("demo") | weighed("demo"), weights=True)
    gone = next(run_id for run_id, run in configs("demo").items() if run.seed == 1 and run.initial is None)
    shutil.rmtree(clone / "results" / "demo" / "runs" / gone)
    plan = planned(clone, "all")
    assert plan.count("rule train:") == 1 and f"wildcards: run_id={gone}" in plan


@pytest.mark.parametrize("name", ["tables/table3.csv", "figures/table3_rows.pdf"])
def test_a_table_or_figure_that_is_gone_is_made_again_without_training(clone, name):
    finish(clone, configs("demo"), weights=False)
    finish(clone, headline_configs("demo") | weighed("demo"), weights=True)
    (clone / "results" / "demo" / name).unlink()
    plan = planned(clone, "all")
    assert "rule train:" not in plan and plan.count("rule notebook_") == plan.count("rule notebook_06_ablation") == 1


def test_a_run_that_starts_from_another_asks_for_its_weights(clone):
    finish(clone, configs("demo"), weights=False)
    finish(clone, headline_configs("demo") | weighed("demo"), weights=True)
    second = next(run_id for run_id, run in configs("demo").items() if run.initial is not None)
    shutil.rmtree(clone / "results" / "demo" / "runs" / second)
    assert planned(clone, "all").count("rule train:") == 2


def test_a_real_set_without_manifest_says_how_to_make_it(clone):
    done = dry_run(clone, "paper-mafw", "all")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "mafw.csv: no such manifest" in said and "-p dataset mafw -p root FOLDER -p fold 1" in said
