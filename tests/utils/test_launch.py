"""How the workflow starts a command, from its resources; no SLURM is needed here, tests/cluster brings one up."""

import json
import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from commands import process

from adatosk.utils.launch import check_launched, occupy, started, visible_gpus

TRAIN = ["-m", "adatosk.train", "it's a run.json", "--root=/data/My Sets; touch y"]


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
    """A machine without SLURM and GPUs, whose places on GPUs are kept apart from the real ones."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr("socket.gethostname", lambda: "node7")


@pytest.mark.parametrize("gres", ["", "gpu", "gpu:1"])
def test_one_gpu_or_none_is_one_plain_process(gres):
    assert started(TRAIN, gres) == [sys.executable, *TRAIN]


def test_the_gpus_of_a_node_are_torchrun_s():
    torchrun = [sys.executable, "-m", "torch.distributed.run"]
    assert started(TRAIN, "gpu:8") == [*torchrun, "--nproc-per-node=8", "--standalone", *TRAIN]


def test_several_nodes_meet_at_the_first_at_a_port_of_the_job(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "123456")
    words = started(TRAIN, "gpu:a100:4", nodes=2, cpus=32)
    assert words[:4] == ["srun", "--nodes=2", "--ntasks-per-node=1", "--cpus-per-task=32"]
    assert {"--gres=gpu:a100:4", "--kill-on-bad-exit=1"} == set(words[4 : words.index(sys.executable)])
    assert {"--nnodes=2", "--nproc-per-node=4", "--rdzv-id=123456", "--rdzv-endpoint=node7:23456"} <= set(words)
    assert words[-len(TRAIN) :] == TRAIN and "--standalone" not in words


def test_several_nodes_without_gpus_are_a_process_each(monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    words = started(TRAIN, nodes=3)
    assert {"--nnodes=3", "--nproc-per-node=1"} <= set(words) and not [word for word in words if "gres" in word]


def test_several_nodes_need_a_job():
    with pytest.raises(ValueError, match="2 nodes, and this is no SLURM job: submit it with CLUSTER=slurm-nodes"):
        started(TRAIN, "gpu:8", nodes=2)


@pytest.mark.parametrize("gres", ["gpus:1", "gpu:8:a100", "gpu:", "shard:2", "gpu:-1"])
def test_other_resources_are_no_gpus(gres):
    with pytest.raises(ValueError, match="write gpu:8, gpu:a100:8, or nothing"):
        started(TRAIN, gres)


@pytest.mark.parametrize(
    ("tasks", "nodes", "meant"),
    [
        (2, 1, ["srun", "--ntasks=1", "torchrun", "--nproc-per-node=2", "--standalone"]),
        (16, 2, ["srun", "--nodes=2", "--ntasks-per-node=1", "torchrun", "--nproc-per-node=8", "--nnodes=2"]),
    ],
)
def test_what_srun_multiplied_is_refused_with_the_command_that_was_meant(tasks, nodes, meant):
    step = {"SLURM_STEP_NUM_TASKS": str(tasks), "SLURM_STEP_NUM_NODES": str(nodes)}
    with pytest.raises(ValueError, match=f"srun started {tasks} processes") as refused:
        check_launched(TRAIN, step)
    words = shlex.split(str(refused.value).split("start it by: ")[1])
    assert words[: len(meant)] == meant and words[-len(TRAIN) :] == TRAIN
    check_launched(TRAIN, step | {"WORLD_SIZE": str(tasks)})
    check_launched(TRAIN, step | {"SLURM_STEP_NUM_TASKS": "1"})


def test_train_refuses_what_srun_multiplied_before_it_reads_anything(tmp_path):
    run = tmp_path / "no such run.json"
    environment = os.environ | {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1"}
    done = process("adatosk.train", run, "--root", tmp_path, env=environment)
    assert done.returncode == 1 and done.stderr.startswith("error: srun started 2 processes")
    assert done.stderr.rstrip().endswith(f"--standalone -m adatosk.train '{run}' --root {tmp_path}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("listed", "gpus"), [("", []), ("-1", []), ("NoDevFiles", []), ("2", ["2"]), ("GPU-a, GPU-b", ["GPU-a", "GPU-b"])]
)
def test_gpus_are_those_that_the_environment_lists(monkeypatch, listed, gpus):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", listed)
    assert visible_gpus() == gpus


def test_without_a_list_the_driver_s_tool_is_asked(monkeypatch, tmp_path):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: A100 (UUID: GPU-1)'\necho '  MIG 1g.5gb Device 0'\necho 'GPU 1: A100'\n")
    tool.chmod(0o755)
    assert visible_gpus() == ["0", "1"]


def test_more_gpus_than_there_are_is_refused():
    with pytest.raises(ValueError, match="asked for 3 GPUs, and this process may use 2"):
        occupy(["0", "1"], 3, 1)


# Tells which GPUs it was given, and when, by the clock that all processes share.
WORK = "import json, os, time; a = time.monotonic(); time.sleep(1); "
WORK += "print(json.dumps([os.environ['CUDA_VISIBLE_DEVICES'].split(','), a, time.monotonic()]))"


def work(share: int) -> tuple[list[str], float, float]:
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "0,1,2,3"}
    done = process("adatosk.utils.launch", "--gres", "gpu:1", "--share", share, "--", "-c", WORK, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def most_at_once(done: list, gpu: str) -> int:
    """The largest number of commands that had a GPU at one moment."""
    times = [(begin, end) for gpus, begin, end in done if gpu in gpus]
    return max((sum(begin <= moment < end for begin, end in times) for moment, _ in times), default=0)


@pytest.mark.parametrize("share", [1, 2])
def test_twelve_commands_on_four_gpus_are_never_more_than_allowed_on_one(share):
    with ThreadPoolExecutor(12) as pool:
        done = list(pool.map(work, [share] * 12))
    assert all(1 <= most_at_once(done, gpu) <= share for gpu in "0123")


def test_a_killed_command_gives_its_gpu_back(tmp_path):
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "0"}
    line = [sys.executable, "-m", "adatosk.utils.launch", "--gres", "gpu:1", "--"]
    holder = [*line, "-c", "import time; print(1, flush=True); time.sleep(600)"]
    with subprocess.Popen(holder, env=environment, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "1\n"
        (folder,) = Path(os.environ["TMPDIR"]).glob("adatosk-gpus-*")
        lock = next(folder.iterdir())
        assert subprocess.run(["flock", "-n", str(lock), "true"], check=False).returncode == 1
        first.kill()
    assert subprocess.run([*line, "-c", ""], env=environment, timeout=60, check=False).returncode == 0
