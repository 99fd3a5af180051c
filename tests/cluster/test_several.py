"""Several processes, several submissions: they know each other, or are refused."""

import json
import re
import subprocess
import sys

import pytest
from slurm_jobs import EPOCHS, PATIENCE, STATE, state, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(not STATE.is_dir(), reason="make test-cluster starts the SLURM")]


def test_one_run_on_two_nodes_is_two_processes_that_know_each_other(tree):
    run_id = tree.runs[2]
    tree.make(tree.weights(run_id), profile="slurm-nodes")
    assert json.loads((tree.run(run_id) / "metrics.json").read_text())["processes"] == 2
    log = tree.logs(run_id)
    ranks, nodes = zip(*re.findall(r"process (\d+) of 2 on (\w+),", log), strict=True)
    assert sorted(ranks) == ["0", "1"] and sorted(nodes) == ["n1", "n2"]
    assert log.count(f"epoch {EPOCHS} of {EPOCHS},") == 1


def test_the_same_grid_submitted_twice_at_once_trains_each_run_once(tree):
    new = tree.runs[5:7]
    both = [tree.start(*map(tree.weights, new)) for _ in range(2)]
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in both]
    refused = [output for process, output in zip(both, outputs, strict=True) if process.returncode]
    assert len(refused) == 1 and "another make or snakemake is at work in outputs/smoke" in refused[0]
    assert [tree.logs(run_id).count(f"epoch 1 of {EPOCHS},") for run_id in new] == [1, 1]
    assert "Nothing to be done" in tree.make(*map(tree.weights, new))


def test_one_run_submitted_twice_by_hand_is_trained_once(tree):
    run_id = tree.runs[7]
    run = f"outputs/smoke/runs/{run_id}/config.json"
    script = (
        f'#!/bin/sh\nexec "{sys.executable}" -m adatosk.train {run} --root "$ADATOSK_ROOT" --results outputs/smoke\n'
    )
    submit = ["sbatch", "--parsable", "--mem=2000", "--output=by_hand.%j.log"]
    options = {"cwd": tree.folder, "env": tree.environment, "input": script, "capture_output": True, "text": True}
    jobs = [subprocess.run(submit, check=True, **options).stdout.strip() for _ in range(2)]
    wait_for(lambda: not {"PENDING", "RUNNING", "COMPLETING"} & set(map(state, jobs)))
    assert [state(job) for job in jobs] == ["COMPLETED", "COMPLETED"]
    logs = "".join(path.read_text() for path in tree.folder.glob("by_hand.*.log"))
    assert logs.count(f"epoch 1 of {EPOCHS},") == logs.count("already finished") == 1


def test_srun_alone_is_refused_and_nothing_trained(tree):
    line = ["srun", "--ntasks=2", "--mem=2000", sys.executable, "-m", "adatosk.train", "run.json", "--root", "clips"]
    done = subprocess.run(line, cwd=tree.folder, env=tree.environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and done.stderr.count("torchrun --nproc-per-node") == 2
