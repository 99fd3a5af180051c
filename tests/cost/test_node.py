import json
import subprocess
from dataclasses import asdict
from types import SimpleNamespace

import pandas as pd
import pytest
import torch

from adatosk.cost import node
from adatosk.cost.node import LIMITS, PARTS, Verdict, run_part

CPU = torch.device("cpu")


def test_a_verdict_is_a_line_with_value_and_goal():
    assert str(Verdict("fed", "rate", 0.95, 0.9)) == "ok   fed   rate 0.95 (goal at least 0.9)"
    assert str(Verdict("demo", "seconds", 20.0, 15, True, "slow")) == "MISS demo  seconds 20 (goal at most 15): slow"
    assert str(Verdict("steps", "rate", 3.0)) == "ok   steps rate 3" and not Verdict("steps", "rate", float("nan")).met
    assert set(LIMITS) == set(PARTS) and sum(LIMITS.values()) <= 480


FOUND = Verdict("fed", "rate", 0.95, 0.9)


@pytest.mark.parametrize(
    ("end", "line"),
    [
        ((1, "Traceback\nRuntimeError: CUDA is lost\n"), "CUDA is lost"),
        ((-9, ""), "no output"),
        (subprocess.TimeoutExpired("part", 7), "stopped after 7 s"),
    ],
)
def test_a_part_that_fails_becomes_a_line_beside_what_it_found(end, line, tmp_path, monkeypatch):
    def run(*_, stdout, stderr, **__):
        stdout.write(f"epoch 1\n{json.dumps(asdict(FOUND))}\n")
        if isinstance(end, Exception):
            raise end
        stderr.write(end[1])
        return SimpleNamespace(returncode=end[0])

    monkeypatch.setattr(node.subprocess, "run", run)
    first, last = run_part("fed", CPU, tmp_path, 7)
    assert first == FOUND and str(last).startswith("MISS fed") and line in str(last)


def test_a_parts_verdicts_are_read_from_its_lines(tmp_path, monkeypatch):
    def run(*_, stdout, **__):
        stdout.write(f"epoch 1\n{json.dumps(asdict(FOUND))}\n")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(node.subprocess, "run", run)
    first, last = run_part("fed", CPU, tmp_path, 100)
    assert first == FOUND and last.what == "seconds" and last.met


def test_without_a_gpu_it_says_so_and_records_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(node, "run_part", lambda name, *_: [Verdict(name, "value", 1.0, 0.0)])
    assert node.main(tmp_path / "out") == 1
    said = capsys.readouterr().out
    assert said.count("NO GPU HERE") == 2 and [line[5:9].strip() for line in said.splitlines()[2:-1]] == [
        name[:4] for name in PARTS
    ]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("value", "status"), [(1.0, 0), (-1.0, 1)])
def test_on_a_gpu_the_verdicts_are_recorded(tmp_path, monkeypatch, value, status):
    monkeypatch.setattr(node, "run_device", lambda: torch.device("cuda"))
    monkeypatch.setattr(node, "device_name", lambda device: "A GPU")
    monkeypatch.setattr(node, "provenance", lambda device: {"device": "A GPU"})
    monkeypatch.setattr(node, "run_part", lambda name, *_: [Verdict(name, "value", value, 0.0)])
    assert node.main(tmp_path) == status
    table = pd.read_csv(tmp_path / "a-gpu-node.csv")
    assert table["part"].tolist() == list(PARTS) and set(table["met"]) == {not status}
