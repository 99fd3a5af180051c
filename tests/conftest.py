import os

import pytest

# The tests run side by side, one thread each, so that two processes do not fight over two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Tests, and the notebooks beside them, know what a CPU computes; those marked gpu ask for the other device themselves.
os.environ["ADATOSK_DEVICE"] = "cpu"
# `cpu` here rehearses those tests on a machine without a GPU, which shows that they run and nothing about a GPU.
REHEARSAL = os.environ.get("ADATOSK_GPU_TESTS_ON")

# The longest tests and notebooks go first, so that no process is left alone with one of them at the end.
LONGEST = (
    *("10_ambiguities", "test_workflow", "test_wheel", "test_train", "test_run_state", "12_rivals_and_cost"),
    *("test_cli", "test_notebook_sets", "test_contenders", "test_export", "test_crashes", "02_hard_and_soft_masks"),
    *("test_predict_many", "test_examples", "test_imports", "04_evaluation", "05_efficiency", "09_visualization"),
)


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture
def gpu(monkeypatch):
    """The GPU, which runs and commands take by default in this test."""
    import torch

    if REHEARSAL is None and not torch.cuda.is_available():
        pytest.skip(f"needs a GPU, and torch {torch.__version__} sees none here")
    monkeypatch.setenv("ADATOSK_DEVICE", REHEARSAL or "cuda")
    return torch.device(REHEARSAL or "cuda")
