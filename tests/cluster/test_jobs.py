"""Runs and notebooks as jobs within a node of a SLURM; one is cancelled."""

import json
import re
import shutil

import pytest
from slurm_jobs import CLIPS, EPOCHS, STATE, finished, said, wait_for

pytestmark = [pytest.mark.cluster, pytest.mark.skipif(not STATE.is_dir(), reason="make test-cluster starts the SLURM")]


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
        rule = re.search(r"Comment=\"?rule_(\w+?)(?:_wildcards|\"? )", line)
        # Of this tree alone, but that clips are prepared once for all.
        if rule and (f"WorkDir={tree.folder} " in line or rule[1] == "prepare"):
            with_gpu[rule[1]].append("TresPerNode=gres:gpu:1" in line)
    assert with_gpu["train"] == [True, True] and with_gpu["notebook_02_hard_and_soft_masks"] == [True]
    assert with_gpu["prepare"] == with_gpu["notebook_01_data_preparation"] == [False]
    for run_id in pair:
        metrics = json.loads((tree.run(run_id) / "metrics.json").read_text())
        assert metrics["processes"] == 1 and f"epoch {EPOCHS} of {EPOCHS}," in tree.logs(run_id)
    notebooks = tree.results / "notebooks"
    assert {path.name for path in notebooks.iterdir()} == {"02_hard_and_soft_masks.ipynb", "01_data_preparation.ipynb"}
    # Rendered and decoded once, by the job before all others; and nothing was made of the folder's name.
    assert (CLIPS / "benchmark.json").is_file() and "decoding" not in "".join(map(tree.logs, pair))


def test_a_cancelled_job_is_submitted_again_and_ends_with_the_same_bits(tree, pair):
    run_id = pair[0]
    whole = (tree.folder / tree.weights(run_id)).read_bytes()
    shutil.rmtree(tree.run(run_id))
    shutil.rmtree(tree.folder / "logs")
    process = tree.start(tree.weights(run_id))
    wait_for(lambda: tree.half_way(run_id), process)
    said("scancel", tree.job(run_id))
    finished(process)
    assert re.search(r"resuming after epoch \d+", tree.logs(run_id))
    assert (tree.folder / tree.weights(run_id)).read_bytes() == whole
