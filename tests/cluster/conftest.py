"""A checkout for each file of tests on a SLURM, which ``make test-cluster`` starts on this machine: see slurm.sh."""

import shutil
from collections.abc import Iterator

import pytest
from filelock import FileLock
from slurm_jobs import PREPARED, STATE, Tree


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Iterator[Tree]:
    """The checkout, with clips that a job in the first of all prepares."""
    tree, decoded = Tree(tmp_path_factory.mktemp("it's a tree; of mine")), STATE / "decoded"
    with FileLock(STATE / "clips.lock"):
        if decoded.is_dir():
            shutil.copytree(decoded, tree.folder / "data")
            (tree.folder / PREPARED).touch()
        else:
            tree.make(PREPARED)
            shutil.copytree(tree.folder / "data", decoded)
    yield tree
    tree.end()
