import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from adatosk.cost import loader as loader_benchmark
from adatosk.cost.loader import (
    CACHE,
    DECODED,
    FOR_CPU,
    FOR_GPU,
    FRAME_FOLDERS,
    VIDEO_FILES,
    loader_table,
    node_needs,
    open_loader,
    process_costs,
    rendered,
    trace,
)
from adatosk.cost.models import growth, table2_times
from adatosk.plots import cost as plots_cost
from adatosk.presets import MODELS, PROFILES

SMOKE = PROFILES["smoke"]


@pytest.fixture(scope="module")
def sources():
    with rendered(SMOKE, side=96) as found:
        yield {source.name: source for source in found}


def test_the_three_forms_hold_the_same_clips(sources):
    assert list(sources) == [VIDEO_FILES, FRAME_FOLDERS, CACHE]
    batches = {name: next(iter(open_loader(source, SMOKE, 4, 0))) for name, source in sources.items()}
    reference = batches[VIDEO_FILES]["video"].float()
    for name, batch in batches.items():
        assert torch.equal(batch["index"], batches[VIDEO_FILES]["index"])
        difference = (batch["video"].float() - reference).abs().mean()
        # JPEG and the cache's smaller frames change a little, another clip would change a lot.
        assert difference < 8, name
    assert (reference - reference.roll(1, 0)).abs().mean() > 16


def test_the_table_has_a_row_for_each_source_and_number_of_workers(monkeypatch):
    monkeypatch.setattr(loader_benchmark, "appetite", lambda config, batch: 50.0)
    monkeypatch.setattr(loader_benchmark, "loading_rate", lambda source, config, batch, workers: 100.0 * (1 + workers))
    table = loader_table("smoke", workers=(0, 2), report=lambda line: None)
    assert table["source"].tolist() == [VIDEO_FILES] * 2 + [FRAME_FOLDERS] * 2 + [CACHE] * 2
    assert table["feeds"].tolist() == [2, 6] * 3
    assert table["device"].notna().all()


def test_a_faster_gpu_needs_more_cores(monkeypatch):
    monkeypatch.setattr(loader_benchmark, "loading_rate", lambda *args, **options: 40.0)
    monkeypatch.setattr(loader_benchmark, "count_work", lambda *args: 5e11)  # 1 TFLOP a clip
    needs = node_needs(side=32, gpu_tflops=100.0, report=lambda line: None)
    assert needs["step_clips_per_second"].tolist() == [100, 100]
    assert needs["cores_per_gpu"].tolist() == [3, 3]


def test_loading_is_counted_in_clips(sources, monkeypatch):
    seconds = iter([10.0, 12.0])
    monkeypatch.setattr(loader_benchmark.time, "perf_counter", lambda: next(seconds, 0.0))
    monkeypatch.setattr(loader_benchmark, "open_loader", lambda *args: [{"video": torch.zeros(4, 3, 2, 8, 8)}] * 5)
    assert loader_benchmark.loading_rate(sources[CACHE], SMOKE, 4, 0) == 20 / 2


def test_a_trace_shows_who_loads_and_who_waits(sources):
    table = trace(sources[CACHE], SMOKE, 4, workers=(0, 1), steps=2)
    assert (table["end"] >= table["start"]).all()
    for count, spans in table.groupby("workers"):
        training = spans[spans["lane"] == "training"].sort_values("start")
        assert training["what"].tolist() == ["wait", "step"] * 2, count
        assert (np.diff(training[["start", "end"]].to_numpy().ravel()) >= 0).all()
        loads = spans[spans["what"] == "load"]
        if count == 0:  # in the training's own process, it loads while it waits
            waits = training[training["what"] == "wait"]
            inside = [
                ((waits["start"] <= load.start) & (load.end <= waits["end"])).any() for load in loads.itertuples()
            ]
            assert len(loads) == 8 and all(inside)
        else:  # a process loads while the training is at its steps
            assert (loads["start"] < training["end"].max()).all() and (loads["end"] > 0).all() and len(loads)
    figure = plots_cost.loader_trace(table)
    figure.draw_without_rendering()
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["in the training's own process", "1 processes"]


def test_figures_of_seconds_draw_every_point():
    config = MODELS["adatosk_tiny"].change(image_size=64)
    times = table2_times("cpu", config, repeats=1, report=lambda line: None)
    figure = plots_cost.seconds_by_macs(times)
    figure.draw_without_rendering()
    points = [point for line in figure.axes[0].lines[:-2] for point in line.get_xydata().tolist()]
    assert sorted(points) == sorted(times[["gmacs", "seconds"]].to_numpy().tolist())
    sweeps = {"frames": (8, 16), "batch": (1, 2)}
    grown = growth("cpu", config, ("adatosk",), sweeps, repeats=1, report=lambda line: None)
    figure = plots_cost.growth(grown)
    figure.draw_without_rendering()
    assert [ax.get_xlabel() for ax in figure.axes] == ["frames", "clips at once"]
    assert not plt.get_fignums()


def test_what_a_process_does_besides_decoding_is_told_for_both_devices():
    lines = []
    table = process_costs(side=64, batch=4, rounds=1, report=lines.append)
    assert table["way"].tolist() == [DECODED, FOR_GPU, FOR_CPU] and len(lines) == 3
    assert table["ratio"][0] == 1 and (table["milliseconds"] > 0).all()


def test_speed_ups_have_a_bar_a_model_and_setup():
    setup = {"work": "forward", "batch": 1, "precision": "fp32", "compiled": False}
    rows = [("videomae", 1, 1.0), ("adatosk", 1, 8.66), ("videomae", 4, 1.0), ("adatosk", 4, 9.2)]
    table = pd.DataFrame([setup | {"model": model, "batch": batch, "speed_up": up} for model, batch, up in rows])
    (ax,) = plots_cost.speed_ups(table).axes
    assert [bar.get_width() for bar in ax.patches] == [8.66, 9.2]
    assert [text.get_text() for text in ax.texts] == ["8.7×", "9.2×"]
    assert [text.get_text() for text in ax.get_yticklabels()] == ["forward, 1 clip, fp32", "forward, 4 clips, fp32"]
