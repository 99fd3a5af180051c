"""A kill or a full disk at any file operation: nothing is lost, and the same command then ends with the same bits."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from crash_scenarios import SCENARIOS

from adatosk.utils.project import PROJECT

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or not Path("/proc/self/fd").is_dir(), reason="needs Linux")


def crash(folder, most, fates, names):
    """What :mod:`crashes` reports, a dict for each point; none may have a fault."""
    command = [sys.executable, str(PROJECT / "tests" / "helpers" / "crashes.py"), str(folder), str(most), fates, *names]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr[-2000:]
    points = [json.loads(line) for line in done.stdout.splitlines()]
    faulty = [point for point in points if point["faults"]]
    assert not faulty, json.dumps(faulty[:5], indent=1)
    return points


def test_a_sample_of_kills_and_refusals_leaves_nothing_behind(tmp_path):
    points = crash(tmp_path, 2, "kill,refuse", SCENARIOS)
    assert len(points) == 2 * 2 * len(SCENARIOS)
    # Each killed process was: its last operation happened, and no later one.
    assert all(point["status"] == -9 for point in points if point["fate"] == "kill")


@pytest.mark.crash
@pytest.mark.parametrize("fate", ["kill", "refuse"])
@pytest.mark.parametrize("name", SCENARIOS)
def test_every_operation(name, fate, tmp_path):
    points = crash(tmp_path, 0, fate, [name])
    assert [point["point"] for point in points] == list(range(1, len(points) + 1))
    kinds = Counter(point["operation"].split(" ")[0] for point in points)
    assert {"mkdir", "open", "write", "replace", "unlink"} <= set(kinds)
