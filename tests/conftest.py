import os

# The tests run side by side, one thread each, so that two processes do not fight over two cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# The longest tests and notebooks go first, so that no process is left alone with one of them at the end.
LONGEST = (
    *("10_ambiguities", "test_workflow", "test_wheel", "test_train", "test_run_state", "12_rivals_and_cost"),
    *("test_cli", "test_notebook_sets", "test_contenders", "test_export", "test_crashes", "02_hard_and_soft_masks"),
    *("test_predict_many", "test_examples", "test_imports", "04_evaluation", "05_efficiency", "09_visualization"),
)


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))
