"""A job that runs out of time."""

import pytest
from filelock import FileLock
from slurm_jobs import EPOCHS, STATE, finished, state, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(not STATE.is_dir(), reason="make test-cluster starts the SLURM")]


def test_a_job_over_its_time_limit_is_retried(tree):
    run_id = tree.runs[3]
    with FileLock(tree.results / f".{run_id}.lock"):
        # Minutes, as SLURM counts; the second time more, in case this machine is busy.
        process = tree.start(tree.weights(run_id), runtime="1 if attempt == 1 else 60")
        job = wait_for(lambda: tree.job(run_id), process)
        wait_for(lambda: state(job) == "TIMEOUT", process)
    finished(process)
    # SLURM says it of the job and of its step.
    cut_off, *_, again = tree.logs(run_id).split("DUE TO TIME LIMIT")
    assert "epoch" not in cut_off and f"epoch {EPOCHS} of {EPOCHS}," in again
