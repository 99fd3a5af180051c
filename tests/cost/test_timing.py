import pytest
import torch

from adatosk.cost import timing
from adatosk.cost.timing import matrix_peak, matrix_peaks, time_pair


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
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
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
    monkeypatch.setattr(timing, "seconds", lambda work, device: next(times))
    assert matrix_peak(sizes=(8, 4), repeats=2) == 2 * 8**3 / 0.5


def test_the_better_product_is_the_peak(monkeypatch):
    rates = {torch.matmul: 3e9, timing.linear: 5e9}
    monkeypatch.setattr(timing, "matrix_peak", lambda device, dtype, product: rates[product])
    found = matrix_peaks("cpu", torch.float32)
    assert found == {"peak_gflops": 5, "peak_torch_gflops": 3, "peak_linear_gflops": 5}


def test_matrix_peak_of_this_machine_is_plausible():
    assert 1e7 < matrix_peak(sizes=(256,), repeats=2) < 1e16
