"""The workflow on a real SLURM, which ``make test-cluster`` starts on this machine: see slurm.sh beside this file."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from filelock import FileLock

from adatosk.utils.project import PROJECT

STATE = os.environ.get("ADATOSK_TESTS_SLURM")
pytestmark = [pytest.mark.cluster, pytest.mark.skipif(STATE is None, reason="make test-cluster starts the SLURM")]

CLIPS = 'my "clips"; it\'s $HOME'
# The smoke profile with a batch for two processes, and long enough to be interrupted.
BEFORE, AFTER = "epochs=4, warmup_epochs=1, batch_size=7", "epochs=24, warmup_epochs=1, batch_size=8"
# What this machine has; the rest of a profile is left as it is. Status is asked for more often than of a cluster.
SMALL = {"latency-wait": 5, "slurm-init-seconds-before-status-checks": 1, "seconds-between-status-checks": 1}
ROOMY = 2000  # MB
PATIENCE = 600  # seconds for what takes one on an idle machine


class Tree:
    """A checkout of its own, and what its jobs do."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, folder / "outputs" / "smoke"
        for name in ("adatosk", "notebooks", "data_manifests", "workflow"):
            shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "Snakefile", folder)
        presets = folder / "adatosk" / "presets.py"
        text = presets.read_text()
        assert text.count(BEFORE) == 1
        presets.write_text(text.replace(BEFORE, AFTER))
        self.environment = os.environ | {"PYTHONPATH": str(folder), "ADATOSK_ROOT": str(folder / CLIPS)}
        listed = "from adatosk.experiments.grid import configs; print(*configs('smoke', ('table1',)))"
        done = subprocess.run([sys.executable, "-c", listed], cwd=folder, env=self.environment, capture_output=True)
        self.runs = done.stdout.decode().split()

    def run(self, run_id: str) -> Path:
        return self.results / "runs" / run_id

    def weights(self, run_id: str) -> str:
        return str((self.run(run_id) / "checkpoints" / "last" / "model.safetensors").relative_to(self.folder))

    def start(self, *targets: str, profile: str = "slurm", **training) -> subprocess.Popen:
        """Snakemake with a profile of the project, cut to this machine, ``training`` replacing resources of a run."""
        settings = yaml.safe_load((self.folder / "workflow" / "profiles" / f"{profile}.yaml").read_text()) | SMALL
        settings["set-threads"] = dict.fromkeys(settings["set-threads"], 1)
        settings["default-resources"] |= {"mem_mb": ROOMY}
        for rule, resources in settings["set-resources"].items():
            resources |= {"mem_mb": ROOMY, "gres": "gpu:1"} | (training if rule in ("train", "finish") else {})
            if rule == "prepare":
                del resources["gres"]
        path = self.folder / "profile.yaml"
        path.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-m", "snakemake", *targets, "--workflow-profile", path.name, "--nolock"]
        # The clips are prepared once for all tests, which saves minutes.
        command += ["--notemp", "--rerun-incomplete", "--rerun-triggers", "mtime", "--config", "profile=smoke"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, **pipes)

    def make(self, *targets: str, **options) -> str:
        return finished(self.start(*targets, **options))

    def logs(self, run_id: str) -> str:
        """What the jobs of a run printed, in their order."""
        paths = (self.folder / "logs").glob(f"rule_train/{run_id}/*.log")
        return "".join(path.read_text() for path in sorted(paths, key=lambda path: int(path.stem)))

    def job(self, run_id: str) -> str:
        """The number of the job that trains a run."""
        asked = ["squeue", "--noheader", "--format=%i %k", "--states=running"]
        return wait_for(lambda: next((line.split()[0] for line in said(*asked).splitlines() if run_id in line), None))

    def half_way(self, run_id: str) -> bool:
        log = self.run(run_id) / "log.jsonl"
        return log.is_file() and 4 <= len(log.read_text().splitlines()) < 20


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def finished(process: subprocess.Popen) -> str:
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, output
    return output


def wait_for(condition: Callable, seconds: float = PATIENCE):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Tree:
    return Tree(tmp_path_factory.mktemp("it's a tree; of mine"))


@pytest.fixture(scope="module")
def pair(tree) -> tuple[str, str]:
    """The first pair of runs, trained as jobs, with two notebooks."""
    first = tree.runs[:2]
    notebooks = [f"outputs/smoke/notebooks/{name}.ipynb" for name in ("02_hard_and_soft_masks", "01_data_preparation")]
    tree.make(*map(tree.weights, first), *notebooks)
    return first


def test_the_pair_and_two_notebooks_are_jobs_with_the_gpus_they_need_and_logs_that_stay(tree, pair):
    shown = said("scontrol", "--oneliner", "show", "jobs").splitlines()
    with_gpu = {
        rule: [] for rule in ("prepare", "train", "notebook_02_hard_and_soft_masks", "notebook_01_data_preparation")
    }
    for line in shown:
        rule = re.search(r"Comment=\"?rule_(\w+?)(?:_wildcards|\"? )", line)[1]
        with_gpu[rule].append("TresPerNode=gres:gpu:1" in line)
    assert with_gpu["train"] == [True, True] and with_gpu["notebook_02_hard_and_soft_masks"] == [True]
    assert with_gpu["prepare"] == with_gpu["notebook_01_data_preparation"] == [False]
    for run_id in pair:
        metrics = json.loads((tree.run(run_id) / "metrics.json").read_text())
        assert metrics["processes"] == 1 and "epoch 24 of 24," in tree.logs(run_id)
    notebooks = tree.results / "notebooks"
    assert {path.name for path in notebooks.iterdir()} == {"02_hard_and_soft_masks.ipynb", "01_data_preparation.ipynb"}
    # Rendered and decoded once, by the job before all others; and nothing was made of the folder's name.
    assert (tree.folder / CLIPS / "benchmark.json").is_file() and "decoding" not in "".join(map(tree.logs, pair))


def test_one_run_on_two_nodes_is_two_processes_that_know_each_other(tree):
    run_id = tree.runs[2]
    tree.make(tree.weights(run_id), profile="slurm-nodes")
    assert json.loads((tree.run(run_id) / "metrics.json").read_text())["processes"] == 2
    log = tree.logs(run_id)
    assert log.count("process 0 of 2 on n1,") == log.count("process 1 of 2 on n2,") == log.count("epoch 24 of 24,") == 1


def test_a_cancelled_job_is_submitted_again_and_ends_with_the_same_bits(tree, pair):
    run_id = pair[0]
    whole = (tree.folder / tree.weights(run_id)).read_bytes()
    shutil.rmtree(tree.run(run_id))
    shutil.rmtree(tree.folder / "logs")
    process = tree.start(tree.weights(run_id))
    wait_for(lambda: tree.half_way(run_id))
    said("scancel", tree.job(run_id))
    finished(process)
    assert re.search(r"resuming after epoch \d+", tree.logs(run_id))
    assert (tree.folder / tree.weights(run_id)).read_bytes() == whole


def test_a_job_over_its_time_limit_is_retried(tree):
    run_id = tree.runs[3]
    tree.results.mkdir(parents=True, exist_ok=True)
    with FileLock(tree.results / f".{run_id}.lock"):
        # Minutes, as SLURM counts; the second time more, in case this machine is busy.
        process = tree.start(tree.weights(run_id), runtime="1 if attempt == 1 else 60")
        job = tree.job(run_id)
        wait_for(lambda: "JobState=TIMEOUT" in said("scontrol", "show", "job", job))
    finished(process)
    assert "waiting for another process" in tree.logs(run_id) and "DUE TO TIME LIMIT" in tree.logs(run_id)


@contextmanager
def node_of(job: str) -> Iterator[str]:
    """The node of a job dies, with all that runs for the job there; it is back after the block."""
    node = said("squeue", "--noheader", "--format=%N", f"--jobs={job}").strip()
    os.kill(int(Path(f"{STATE}/slurmd.{node}.pid").read_text()), signal.SIGKILL)
    stepd = [pid for pid, line in processes("cmdline") if line.startswith(f"slurmstepd: [{job}.".encode())]
    of_job = [pid for pid, line in processes("environ") if f"SLURM_JOB_ID={job}\0".encode() in line]
    for pid in stepd + of_job:
        os.kill(pid, signal.SIGKILL)
    yield node
    subprocess.run(["slurmd", "-N", node], check=True)


def processes(what: str) -> Iterator[tuple[int, bytes]]:
    for path in Path("/proc").glob(f"[0-9]*/{what}"):
        try:
            yield int(path.parent.name), path.read_bytes()
        except OSError:
            continue


def test_a_job_whose_node_dies_goes_on_elsewhere(tree):
    run_id = tree.runs[4]
    process = tree.start(tree.weights(run_id))
    wait_for(lambda: tree.half_way(run_id))
    with node_of(tree.job(run_id)) as dead:
        finished(process)
    again = said("squeue", "--noheader", "--states=completed", "--format=%N %k", "--sort=-i").splitlines()
    assert next(line.split()[0] for line in again if run_id in line) != dead
    assert "resuming after epoch" in tree.logs(run_id)


def test_the_same_grid_submitted_twice_at_once_trains_each_run_once(tree):
    new = tree.runs[5:7]
    both = [tree.start(*map(tree.weights, new)) for _ in range(2)]
    outputs = [process.communicate(timeout=PATIENCE)[0] for process in both]
    refused = [output for process, output in zip(both, outputs, strict=True) if process.returncode]
    assert len(refused) == 1 and "another make or snakemake is at work in outputs/smoke" in refused[0]
    assert [tree.logs(run_id).count("epoch 1 of 24,") for run_id in new] == [1, 1]
    assert "Nothing to be done" in tree.make(*map(tree.weights, new))


def test_one_run_submitted_twice_by_hand_is_trained_once(tree, pair):
    run_id = tree.runs[7]
    run = f"outputs/smoke/runs/{run_id}/config.json"
    script = (
        f'#!/bin/sh\nexec "{sys.executable}" -m adatosk.train {run} --root "$ADATOSK_ROOT" --results outputs/smoke\n'
    )
    submit = ["sbatch", "--parsable", "--mem=2000", "--output=by_hand.%j.log"]
    options = {"cwd": tree.folder, "env": tree.environment, "input": script, "capture_output": True, "text": True}
    jobs = [subprocess.run(submit, check=True, **options).stdout.strip() for _ in range(2)]
    wait_for(lambda: all("JobState=COMPLETED" in said("scontrol", "show", "job", job) for job in jobs))
    logs = "".join(path.read_text() for path in tree.folder.glob("by_hand.*.log"))
    assert logs.count("epoch 1 of 24,") == logs.count("already finished") == 1


def test_srun_alone_is_refused_and_nothing_trained(tree):
    line = ["srun", "--ntasks=2", "--mem=2000", sys.executable, "-m", "adatosk.train", "run.json", "--root", "clips"]
    done = subprocess.run(line, cwd=tree.folder, env=tree.environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and done.stderr.count("torchrun --nproc-per-node") == 2
