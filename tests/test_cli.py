"""The command line as a whole: help, how commands end, and the doors of single modules."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
import typer
from commands import command, process
from filelock import Timeout
from media import moving_frames, truncate, write_video
from safetensors import SafetensorError

from adatosk import create_model
from adatosk.cli import app
from adatosk.cli.options import Precision
from adatosk.manifests import Manifest
from adatosk.predict import PRECISIONS
from adatosk.presets import PROFILES
from adatosk.utils.endings import CONVENTION, line_of
from adatosk.utils.project import PROJECT

COMMANDS = sorted(typer.main.get_command(app).commands)
DOORS = {
    "train": "train",
    "predict": "predict",
    "predict_many": "predict",
    "export": "export",
    "pretrained": "pretrained",
}
HEAVY = {"torch", "numpy", "pandas", "cv2", "av", "scipy", "matplotlib", "timm", "transformers", "accelerate"}
INTERRUPTIONS = PROJECT / "tests" / "helpers" / "interruptions.py"


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """Three videos and their manifest, a model, a checkpoint of it, and a run's configuration."""
    root = tmp_path_factory.mktemp("root")
    for number in range(3):
        write_video(root / f"clip{number}.mp4", moving_frames(64, 48, 64, seed=number))
    rows = [
        {"path": f"clip{n}.mp4", "id": f"clip{n}", "label": label, "split": split}
        for n, (label, split) in enumerate((("a", "train"), ("b", "train"), ("a", "test")))
    ]
    Manifest("three", "1", ("a", "b"), pd.DataFrame(rows)).save(root / "three.csv")
    torch.manual_seed(0)
    create_model("adatosk_tiny").save_pretrained(root / "model")
    run = PROFILES["smoke"].change(
        model={"classes": ("a", "b")},
        data={"manifest": str(root / "three.csv"), "cache_size": 32},
        train={"epochs": 3, "batch_size": 2},
        evaluation={"views": (1,)},
    )
    (root / "run.json").write_text(run.model_dump_json())
    return root


def test_the_commands_are_those_of_the_readme():
    assert COMMANDS == ["benchmark", "check", "export", "predict", "prepare", "pretrained", "report", "train"]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_that_it_takes(name):
    shown = " ".join(command(name, "--help").stdout.split())
    assert f"Examples: adatosk {name}" in shown
    options = {option for parameter in typer.main.get_command(app).commands[name].params for option in parameter.opts}
    example = shown.partition("Examples:")[2]
    assert {word for word in example.split() if word.startswith("--") and len(word) > 2} - options <= {
        "--nproc-per-node"  # torchrun's
    }


def test_help_says_what_the_exit_statuses_mean():
    assert CONVENTION in " ".join(command("--help").stdout.split())
    assert [f"{status} " in CONVENTION for status in (0, 1, 2, 130, 141)] == [True] * 5


def test_help_and_the_doors_help_load_nothing_heavy():
    program = f"""
import contextlib, io, json, runpy, sys
ends = []
for module, words in {[("adatosk", [])] + [("adatosk", [n]) for n in COMMANDS] + [(f"adatosk.{d}", []) for d in DOORS]}:
    sys.argv = [module, *words, "--help"]
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
        except SystemExit as end:
            ends.append((end.code, "Usage: adatosk" in said.getvalue()))
print(json.dumps([ends, sorted(sys.modules)]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    ends, modules = json.loads(done.stdout)
    assert ends == [[0, True]] * (1 + len(COMMANDS) + len(DOORS))
    assert not HEAVY & set(modules)


def test_the_console_script_is_what_the_doors_call():
    from adatosk.__main__ import main
    from adatosk.utils.project import PROJECT

    assert 'adatosk = "adatosk.__main__:main"' in (PROJECT / "pyproject.toml").read_text()
    assert callable(main)


def test_precisions_are_those_that_predicting_takes():
    assert [precision.value for precision in Precision] == list(PRECISIONS)


def test_check_opens_every_clip_and_ends_by_the_convention(root, tmp_path):
    report = tmp_path / "new" / "problems.csv"
    done = command("check", root / "three.csv", "--root", root, "--report", report)
    assert done.exit_code == 0 and done.stdout == f"{root / 'three.csv'}: all 3 clips are fine\n"
    assert pd.read_csv(report)["frames"].tolist() == [64] * 3
    other = tmp_path / "other"
    other.mkdir()
    for number in (0, 1):
        (other / f"clip{number}.mp4").write_bytes((root / f"clip{number}.mp4").read_bytes())
    truncate(other / "clip1.mp4", 0.5)
    done = command("check", root / "three.csv", "--root", other)
    assert done.exit_code == 1
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["clip1", "clip2"]
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {root / 'three.csv'}: 2 of 3 clips are broken (") and "missing 1" in last


@pytest.mark.parametrize(
    "arguments",
    [
        ("nothing",),
        ("train", "run.json"),
        ("predict", "a.mp4", "b.mp4", "--model", "m"),
        ("predict", "a.mp4", "--model", "m", "--precision", "bf16"),
        ("predict", "a.mp4", "--model", "m", "--out", "t.csv", "--start", "3"),
        ("predict", "a.mp4", "--model", "m", "--out", "t.csv", "--batch-size", "0"),
        ("benchmark", "a.mp4", "--loader"),
        ("benchmark", "--sizes", "huge"),
        ("report", "--profile", "huge"),
        ("export", "m"),
    ],
)
def test_wrong_usage_is_2(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(*arguments)
    assert done.exit_code == 2 and "Usage: " in done.stderr and not done.stdout and not list(tmp_path.iterdir())


def test_what_the_input_lacks_is_1_and_names_it(tmp_path):
    for arguments in (
        ("train", tmp_path / "no.json", "--root", tmp_path),
        ("predict", tmp_path / "no.mp4", "--model", tmp_path / "no"),
        ("predict", tmp_path / "no.mp4", "--model", tmp_path / "no", "--out", tmp_path / "t.csv"),
        ("check", tmp_path / "no.csv", "--root", tmp_path),
        ("export", tmp_path / "no", "--onnx", tmp_path / "m.onnx"),
        ("pretrained", tmp_path / "no.pth"),
        ("benchmark", tmp_path / "no.mp4"),
        ("report", "--profile", "paper"),
    ):
        done = command(*arguments)
        assert done.exit_code == 1 and not done.stdout, arguments
        assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
        assert str(tmp_path / "no") in done.stderr or arguments[0] == "report"
    assert not list(tmp_path.iterdir())


LOADER = 'Caught VideoError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n  File "x"\n'


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a.csv: two\nlines"), "a.csv: two lines"),
        (OSError(errno.ENOSPC, "No space left on device", "/x/a.csv"), "/x/a.csv: No space left on device: make room"),
        (OSError(errno.EFBIG, "File too large"), "File too large: raise the limit"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/x"), "/x: No such file or directory: check"),
        (OSError(errno.ENOSPC, "full: make room", "/x"), "/x: full: make room"),
        (Timeout("/x/.a.lock"), "/x/.a.lock: another process holds this lock: wait"),
        (MemoryError(), "memory does not suffice: use fewer processes (workers)"),
        (ModuleNotFoundError("No module named 'onnx'", name="onnx"), "No module named 'onnx': install it"),
        (SafetensorError("Error while serializing:\nfull"), "Error while serializing: full"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), "the file could not be"),
        (RuntimeError("PytorchStreamWriter failed writing file"), "the file could not be written: make room"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."), "a loader process was killed"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory does not suffice"),
        (RuntimeError("unable to write to file </torch_7_8>: No space left on device (28)"), "/dev/shm, through which"),
        (ValueError(LOADER + "adatosk.video.folders.VideoError: /x/a.mp4: cut short"), "/x/a.mp4: cut short"),
        (RuntimeError(LOADER + "adatosk.video.folders.VideoError: /x/a.mp4: cut short"), "/x/a.mp4: cut short"),
    ],
)
def test_what_a_user_can_mend_is_one_line(error, line):
    said = line_of(error)
    assert said.startswith(line) and "\n" not in said and said.count("make room") <= 1


@pytest.mark.parametrize("error", [KeyError("a"), TypeError("b"), RuntimeError("shapes differ"), AssertionError()])
def test_an_unforeseen_error_keeps_its_traceback(error, root, monkeypatch):
    assert line_of(error) is None

    def broken(*_, **__):
        raise error

    monkeypatch.setattr("adatosk.cli.prediction.predict", broken)
    with pytest.raises(type(error)):
        command("predict", root / "clip0.mp4", "--model", root / "model")


def run_cases(cases, folder, timeout=300):
    """How each case of ``interruptions.py`` ended."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, INTERRUPTIONS, folder],
        input=json.dumps(cases),
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == len(cases), done.stderr
    return list(zip(cases, found, strict=True))


def assert_quietly_interrupted(case, found):
    assert found["status"] == 130, (case, found)
    said = found["err"].splitlines()
    assert "Traceback" not in found["err"] + found["out"], (case, found)
    assert [line for line in said if line.startswith("interrupted: ")] == said[-1:], (case, found)


def example(name: str, root: Path, tmp_path: Path) -> list[str]:
    """Arguments with which a command has something to do."""
    lines = {
        "train": [root / "run.json", "--root", root, "--results", tmp_path / "results", "--cache", tmp_path / "cache"],
        "predict": [root / "clip0.mp4", "--model", root / "model", "--whole-frame"],
        "predict_many": [root, "--model", root / "model", "--out", tmp_path / "t.csv", "--whole-frame"],
        "check": [root / "three.csv", "--root", root, "--report", tmp_path / "problems.csv"],
        "pretrained": [root / "model" / "model.safetensors", "--model", "adatosk_tiny"],
        "export": [root / "model", "--program", tmp_path / "m.pt2"],
        "benchmark": ["--quick", "--sizes", "adatosk_tiny", "--device", "cpu", "--out", tmp_path],
        "report": ["--profile", "demo"],
        "prepare": [root / "run.json", "--root", root, "--cache", tmp_path / "cache"],
    }
    return [str(argument) for argument in lines[name]]


def test_ctrl_c_while_a_command_starts_is_quiet(root, tmp_path):
    cases = []
    for name in COMMANDS:
        line = {"module": "adatosk", "arguments": [name, *example(name, root, tmp_path)]}
        points = ["typer", "numpy" if name == "check" else "torch"]
        cases += [line | {"point": f"import {point}"} for point in points]
    for name in DOORS:
        cases.append({"module": f"adatosk.{name}", "arguments": example(name, root, tmp_path), "point": "import torch"})
    # torch asks for NumPy in C, where an interruption is swallowed at first.
    cases.append({"module": "adatosk.pretrained", "arguments": ["no.pth"], "point": "import numpy"})
    for case, found in run_cases(cases, tmp_path):
        assert_quietly_interrupted(case, found)


# A function that each command calls in the middle of its work, and what is said then.
MIDDLE = {
    "train": ("adatosk.train:optimizer_step", "resumes after the last whole epoch"),
    "predict": ("adatosk.predict:normalise", "nothing was written"),
    "predict_many": ("adatosk.predict_many:in_chunks", "t.csv.part keeps the rows so far; the same command resumes"),
    "check": ("adatosk.video.checks:decode_whole", "problems.csv keeps what was looked at"),
    "pretrained": ("adatosk.pretrained:load_encoder", "nothing was written"),
    "export": ("torch.export:export", "of the others nothing was written"),
    "benchmark": ("adatosk.cost.models:time_pair", "of the others nothing was written"),
    "report": ("adatosk.experiments.report:results_block", "files that were written are whole"),
    "prepare": ("adatosk.clips:open_clips", "the same command resumes"),
}
FIRST = ["adatosk.train", "adatosk.predict_many", "adatosk.export", "adatosk.cost.models", "adatosk.experiments.report"]


def test_the_old_doors_work(root, tmp_path):
    """The other doors do their whole work in the wheel's environment."""
    absent, place = str(tmp_path / "absent"), str(tmp_path / "d")
    doors = [
        {"module": "adatosk.pretrained", "arguments": example("pretrained", root, tmp_path)},
        {"module": "adatosk.export", "arguments": [absent, "--views", "2", "--program", place]},
        {"module": "adatosk.train", "arguments": [f"{absent}.json", "--root", str(root), "--workers", "0"]},
        {"module": "adatosk.predict_many", "arguments": [str(root), "--model", absent, "--out", place]},
    ]
    (_, pretrained), *others = run_cases([{"first": ["torch", "pandas"], **door} for door in doors], tmp_path)
    assert pretrained["status"] == 0 and '"weights"' in pretrained["out"]
    for door, found in others:
        assert found["status"] == 1 and not found["out"], (door, found)
        assert found["err"].startswith("error: ") and found["err"].count("\n") == 1, (door, found)
        assert absent in found["err"], (door, found)
    assert not Path(place).exists()


@pytest.mark.parametrize("names", [["train", "predict_many"], pytest.param(list(MIDDLE), marks=pytest.mark.crash)])
def test_ctrl_c_in_the_middle_of_a_command_is_quiet(root, tmp_path, names):
    cases = []
    for name in names:
        arguments = [DOORS.get(name, name), *example(name, root, tmp_path)]
        cases.append({"module": "adatosk", "arguments": arguments, "point": MIDDLE[name][0], "first": FIRST[:2]})
    for name, (case, one) in zip(names, run_cases(cases, tmp_path), strict=True):
        kept = MIDDLE[name][1]
        assert_quietly_interrupted(case, one)
        assert one["err"].endswith(f"{kept}\n") or kept in one["err"].splitlines()[-1], name
    assert not list(tmp_path.rglob("*.pt2"))


def test_an_output_that_nobody_reads_is_quiet(root, tmp_path):
    read, write = os.pipe()
    os.close(read)
    options = {"capture_output": False, "stderr": subprocess.PIPE, "stdout": write}
    done = process("adatosk", "check", root / "three.csv", "--root", root / "model", **options)
    os.close(write)
    assert done.returncode == 141
    assert not [line for line in done.stderr.splitlines() if "Traceback" in line or "error" in line.lower()]
