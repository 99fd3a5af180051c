from dataclasses import replace

import pytest

from adatosk.cost.operations import hand_count
from adatosk.experiments import scale
from adatosk.presets import MODELS, PROFILES
from adatosk.utils.project import PROJECT

BASE = PROFILES["paper"]


def test_the_page_shows_what_is_computed(tmp_path):
    shown = (PROJECT / "docs" / "scale.md").read_text()
    page = tmp_path / "scale.md"
    page.write_text(f"before {scale.START} old {scale.END} after")
    scale.write_page(page)
    written = page.read_text()
    assert written.startswith("before ") and written.endswith(" after") and " old " not in written
    assert written.removeprefix("before ").removesuffix(" after") in shown


def test_a_run_takes_its_operations_at_the_measured_rate():
    rate = scale.MEASURED.batch / scale.MEASURED.seconds
    assert scale.work(BASE, 9356) == pytest.approx(100 * 9356 / rate)
    whole = BASE.change(model={"mask_ratio": 0.0, "soft_mask": None}, train={"epochs": 50})
    counts = [hand_count(model, training=True).total() for model in (whole.model, MODELS["adatosk_base"])]
    assert scale.work(whole, 9356) == pytest.approx(50 * 9356 / rate * counts[0] / counts[1])


def test_a_run_starts_after_the_one_it_needs_on_the_first_free_gpu():
    one = scale.work(BASE, 1000) / 3600
    later = BASE.change(initial=BASE.model_dump(), seed=1)
    for runs, gpus, expected in (
        ([BASE] * 3, 1, 3),
        ([BASE, BASE.change(seed=2), BASE.change(seed=3)], 2, 2),
        ([BASE, later], 2, 2),
        ([BASE, later, BASE.change(seed=2)], 3, 2),
    ):
        assert scale.hours(runs, 1000, gpus) == pytest.approx(expected * one)


def test_the_grid_has_each_run_once_in_the_order_of_its_repeats():
    runs = scale.grid(BASE, 2)
    half = len(runs) // 2
    assert runs[:half] == runs[half:] and len({run.model_dump_json() for run in runs[:half]}) == half
    assert scale.training_clips("dfew") == (9356, 5) and scale.training_clips("ferv39k") == (31088, 0)


def test_cores_for_a_gpu_come_from_the_recorded_cost_of_a_clip(monkeypatch):
    (device, table), *_ = scale.recorded("-loader-process").items()
    cost = table.set_index("way").loc[scale.FOR_GPU, "milliseconds"]
    assert scale.cores_for(1000 / cost * 3)[device] == 3
    assert replace(scale.MEASURED, seconds=0.1).clips == 640
