import sys

import pandas as pd
import pytest
import torch

from adatosk import benchmark as bench
from adatosk.benchmark import CONTENDERS, RIVAL, WORKS, Setup, benchmark, count_work, matrix_peak, prepare, time_pair
from adatosk.efficiency import hand_count
from adatosk.presets import MODELS

TINY = MODELS["adatosk_tiny"]


class Clock:
    """Time that passes only by work; each candidate takes its own seconds, slower from round to round."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def work(self, name, seconds):
        def run():
            self.calls.append(name)
            self.now += seconds * (1 + self.calls.count(name))

        return run


def test_candidates_take_turns_and_ratios_are_within_a_round(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(bench.time, "perf_counter", lambda: clock.now)
    table = time_pair({"slow": clock.work("slow", 6.0), "fast": clock.work("fast", 2.0)}, repeats=3, warmup=1)
    assert clock.calls == ["slow", "fast", "fast", "slow", "slow", "fast", "fast", "slow"]
    # The first round, 12 and 4 s, is the warm-up; the timed ones take 3, 4 and 5 times a candidate's seconds.
    assert table.loc["slow"].tolist() == [24.0, 18.0, 30.0, 1.0]
    assert table.loc["fast"].tolist() == [8.0, 6.0, 10.0, 3.0]


def test_nothing_to_time_is_an_error():
    with pytest.raises(ValueError, match="needs candidates"):
        time_pair({})
    with pytest.raises(ValueError, match="repeats >= 1"):
        time_pair({"a": int}, repeats=0)


def test_matrix_peak_is_operations_over_the_best_time(monkeypatch):
    times = iter([2.0, 0.5, 1.0, 4.0])
    monkeypatch.setattr(bench, "_seconds", lambda work, device: next(times))
    assert matrix_peak(sizes=(8, 4), repeats=2) == 2 * 8**3 / 0.5


def test_matrix_peak_of_this_machine_is_plausible():
    assert 1e7 < matrix_peak(sizes=(256,), repeats=2) < 1e16


@pytest.mark.parametrize("name", CONTENDERS)
@pytest.mark.parametrize("work", WORKS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_every_contender_works(name, work, precision):
    prepare(name, TINY, Setup(work, 2, precision))()


def test_a_training_step_changes_weights_and_a_forward_pass_does_not(monkeypatch):
    models = []
    build = bench.build
    monkeypatch.setattr(bench, "build", lambda *args: models.append(build(*args)) or models[-1])
    for name in CONTENDERS:
        for work in WORKS:
            run = prepare(name, TINY, Setup(work))
            before = [p.detach().clone() for p in models[-1].parameters()]
            run()
            moved = sum(not torch.equal(a, b) for a, b in zip(before, models[-1].parameters(), strict=True))
            assert moved == 0 if work == "forward" else moved > len(before) / 2


def test_work_is_counted_as_by_hand():
    assert count_work("adatosk", TINY, "forward") == sum(hand_count(TINY).values())
    # VideoMAE sees every patch and has one layer where our head has two.
    whole = hand_count(TINY.change(mask_ratio=0.0, soft_mask=None))
    one_layer = TINY.width * len(TINY.classes)
    assert count_work(RIVAL, TINY, "forward") == sum(whole.values()) - whole["head"] + one_layer
    ratio = count_work("adatosk", TINY, "training step") / sum(hand_count(TINY, training=True).values())
    assert 2.5 < ratio < 3.3  # backward takes two products for each of forward


def test_compiled_contenders_go_through_the_compiler(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda work: compiled.append(work) or work)
    for name in CONTENDERS:
        for work in WORKS:
            before = len(compiled)
            prepare(name, TINY, Setup(work))()
            assert len(compiled) == before
            prepare(name, TINY, Setup(work, compiled=True))()
            assert len(compiled) == before + 1


def test_peak_memory_holds_at_least_the_input():
    if not sys.platform.startswith("linux"):
        pytest.skip("the resident size is read from /proc")
    config, batch = TINY.change(image_size=64), 64
    clip_mib = 3 * config.frames * config.image_size**2 * 4 / bench.MIB
    found = bench.peak_memory("adatosk", config, Setup(batch=batch))
    assert batch * clip_mib < found < 20 * batch * clip_mib


def test_table_has_every_setup_its_peak_share_and_provenance(tmp_path, capsys):
    table = benchmark("cpu", TINY, batch_sizes=(1, 2), compiled=(False,), repeats=2, memory=False)
    assert len(table) == 3 * 2 * 2 * 2
    assert len(capsys.readouterr().out.splitlines()) == 8
    assert (table.query("model == @RIVAL")["speed_up"] == 1).all()
    rate = 2 * table["gmacs"] * table["batch"] / table["seconds"]
    assert table["peak_share"].tolist() == pytest.approx((rate / table["peak_gflops"]).tolist())
    assert table["memory_mib"].isna().all()
    for column in ("commit", "lock", "device", "torch", "python"):
        assert table[column].notna().all()
    path = bench.write_table(table, tmp_path / "benchmark")
    assert path.suffix == ".csv" and list(path.parent.iterdir()) == [path]
    assert pd.read_csv(path).shape == table.shape


def test_command_line_prints_and_writes(tmp_path, capsys):
    bench.main(["--quick", "--model", "adatosk_tiny", "--device", "cpu", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    assert "adatosk without soft mask" in printed
    assert pd.read_csv(printed.splitlines()[-1])["batch"].eq(1).all()


def test_wrong_names_are_told():
    with pytest.raises(ValueError, match="unknown contender 'resnet': choose videomae, adatosk without"):
        bench.build("resnet", TINY)
    with pytest.raises(ValueError, match="unknown work 'backward'"):
        Setup("backward")
    with pytest.raises(ValueError, match="unknown precision 'int8'"):
        Setup(precision="int8")
    with pytest.raises(ValueError, match="at least 1, got 0"):
        Setup(batch=0)


def test_missing_transformers_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install -e \.\[dev\]"):
        bench.build(RIVAL, TINY)
