"""A job whose node goes down."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from slurm_jobs import STATE, finished, said, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(not STATE.is_dir(), reason="make test-cluster starts the SLURM")]


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
    process = tree.start(tree.weights(run_id), partition="fragile")
    wait_for(lambda: tree.half_way(run_id), process)
    with node_of(tree.job(run_id)) as dead:
        finished(process)
    again = said("squeue", "--noheader", "--states=completed", "--format=%N %k", "--sort=-i").splitlines()
    assert next(line.split()[0] for line in again if run_id in line) != dead
    assert "resuming after epoch" in tree.logs(run_id)
