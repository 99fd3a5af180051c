"""The Snakefile: what it would do in a fresh clone, and when everything is there."""

import os
import shutil
import subprocess
import sys

import pytest

from adatosk.grid import headline_configs
from adatosk.provenance import PROJECT


def planned(folder) -> str:
    """What a dry run says in a tree that lies at ``folder``."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(PROJECT / "Snakefile"), "--directory", str(folder)]
    command += ["--dry-run", "--nolock", "--cores", "1", "--rerun-triggers", "mtime", "--config", "profile=demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
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


def test_nothing_is_left_to_do_when_weights_and_notebooks_are_there(clone):
    for run_id in headline_configs("demo"):
        weights = clone / "results" / "demo" / "runs" / run_id / "checkpoints" / "last" / "model.safetensors"
        weights.parent.mkdir(parents=True)
        weights.touch()
    for path in (clone / "results").rglob("*.ipynb"):
        os.utime(path)
    assert "Nothing to be done" in planned(clone)
