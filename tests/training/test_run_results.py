"""Scores and weights of one training stand side by side, whatever the environment says."""

import inspect
import json
import os
import re
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import accelerate
import pytest
import torch
from runs import same, short_run, train_cut_off, weights_of

from adatosk.model import AdaTosk, create_model
from adatosk.train import Trainer, train
from adatosk.training import environment
from adatosk.utils.provenance import device_name, file_digest, provenance, read_metrics
from adatosk.workspace import Run


def quiet(_):
    pass


def test_scores_name_the_digest_of_their_weights(data, places):
    folder = train(short_run(data), places, report=quiet)
    scores = json.loads((folder / "metrics.json").read_text())
    assert scores["weights"] == {
        name: file_digest(folder / "checkpoints" / name / "model.safetensors") for name in ("last", "best_on_test")
    }
    trainer = Trainer(short_run(data), places)
    assert trainer.finished() and trainer.finished(need_checkpoint=True)


def test_no_changed_byte_in_the_results_of_a_run_passes_without_a_word(data, places):
    folder = train(short_run(data), places, report=quiet)
    whole = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    path, refused = folder / "metrics.json", 0
    true = read_metrics(path)
    flips = [(place, bit) for place in range(0, len(whole[path]), 7) for bit in (1, 1 << place % 7)]
    flips += [(place, 1) for name in (b'"files"', b'"sha256"') for place in places_of(name, whole[path])]
    for place, bit in flips:
        path.write_bytes(flipped(whole[path], place, bit))
        try:  # of a float, digits beyond its precision may change, and white space
            assert read_metrics(path) == true, place
        except ValueError as error:
            refused += str(path) in str(error)
    assert refused > 0.6 * len(flips)
    path.write_bytes(whole[path])
    for name, read in (("predictions.csv", lambda run: run.predictions), ("log.jsonl", lambda run: run.log)):
        read(Run(folder))
        (folder / name).write_bytes(flipped(whole[folder / name], -5, 1))
        with pytest.raises(ValueError, match=rf"{name}: damaged \(its SHA-256 differs .*: delete the run's folder"):
            read(Run(folder))
    (folder / "checkpoints" / "finished").mkdir()  # the log was moved from there, and the scores were not yet
    with pytest.raises(ValueError, match=r"log\.jsonl: damaged .*: a training was killed .*: start it again"):
        read(Run(folder))
    train(short_run(data), places, report=quiet)
    assert not (folder / "checkpoints" / "finished").exists()


def places_of(name: bytes, content: bytes) -> range:
    return range(content.index(name), content.index(name) + len(name))


def flipped(content: bytes, place: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= bit
    return bytes(changed)


def test_damaged_weights_are_refused_and_trained_again(data, places):
    folder = train(short_run(data), places, report=quiet)
    before, path = weights_of(folder), folder / "checkpoints" / "last" / "model.safetensors"
    path.write_bytes(flipped(path.read_bytes(), -5, 1))
    with pytest.raises(ValueError, match=rf"{path}: its SHA-256 is .* metrics\.json names .*: damaged"):
        AdaTosk.from_pretrained(path.parent)
    second = short_run(data, initial=short_run(data).model_dump())
    with pytest.raises(ValueError, match=rf"{path}: its SHA-256 is"):
        train(second, places, report=quiet)
    assert Trainer(short_run(data), places).finished()
    assert not Trainer(short_run(data), places).finished(need_checkpoint=True)
    assert same(weights_of(train(short_run(data), places, need_checkpoint=True, report=quiet)), before)


def test_scores_without_a_digest_are_taken_as_they_are(data, places):
    """Those that came with the repository, and weights that somebody keeps elsewhere."""
    folder = train(short_run(data), places, report=quiet)
    path = folder / "metrics.json"
    scores = json.loads(path.read_text())
    path.write_text(json.dumps({key: scores[key] for key in scores.keys() - {"weights", "files", "sha256"}}))
    before = path.read_bytes()
    assert Trainer(short_run(data), places).finished(need_checkpoint=True)
    train(short_run(data), places, need_checkpoint=True, report=quiet)
    assert path.read_bytes() == before
    weights_of(folder)
    shutil.copytree(folder / "checkpoints" / "last", places.results / "elsewhere")
    AdaTosk.from_pretrained(places.results / "elsewhere")


def test_a_second_training_changes_nothing_until_it_is_done(data, places):
    folder = train(short_run(data), places, report=quiet)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    shutil.rmtree(folder / "checkpoints")
    train_cut_off(short_run(data), places, need_checkpoint=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"resume"}
    # A call that needs the scores alone leaves the unfinished training as it is.
    train(short_run(data), places, report=quiet)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"resume"}
    train(short_run(data), places, need_checkpoint=True, report=quiet)
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best_on_test", "last"}


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_weights_are_as_readable_as_everything_else(mask, tmp_path):
    before = os.umask(mask)
    try:
        create_model("adatosk_tiny").save_pretrained(tmp_path)
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("model.safetensors", "config.json", "README.md"), 0o666 & ~mask)


def test_variables_of_the_environment_change_no_run(data, places, tmp_path, monkeypatch):
    expected = weights_of(train(short_run(data), places, report=quiet))
    variables = {
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "2",
        "ACCELERATE_GRADIENT_CLIPPING": "0.001",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_DYNAMO_BACKEND": "EAGER",
        "ACCELERATE_DYNAMO_MODE": "max-autotune",
        "ACCELERATE_USE_FSDP": "true",
        "ACCELERATE_USE_DEEPSPEED": "true",
        "ACCELERATE_USE_MEGATRON_LM": "true",
        "ACCELERATE_USE_PARALLELISM_CONFIG": "true",
        "ACCELERATE_DOWNCAST_BF16": "true",
        "FSDP_VERSION": "2",
        "FSDP_SHARDING_STRATEGY": "FULL_SHARD",
        "MEGATRON_LM_TP_DEGREE": "2",
        "PARALLELISM_CONFIG_DP_SHARD_SIZE": "2",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    lines = []
    again = train(short_run(data), replace(places, results=tmp_path / "again"), report=lines.append)
    assert same(weights_of(again), expected)
    assert all(name in lines[0] for name in variables) and "ignored" in lines[0]
    assert all(os.environ[name] == value for name, value in variables.items())


def test_what_the_launcher_sets_unasked_is_not_spoken_of(monkeypatch):
    for name, value in {"MIXED_PRECISION": "no", "DYNAMO_BACKEND": "NO", "DYNAMO_USE_DYNAMIC": "False"}.items():
        monkeypatch.setenv(f"ACCELERATE_{name}", value)
    lines = []
    with environment.configuration_alone(lines.append):
        assert not [name for name in os.environ if name.startswith("ACCELERATE_")]
    assert not lines and os.environ["ACCELERATE_MIXED_PRECISION"] == "no"


def test_every_variable_that_accelerate_reads_is_hidden_or_known_to_be_harmless():
    """A version that reads others fails here, before it changes a run."""
    harmless = {
        # who takes part, where, and how they talk
        *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES"),
        *("NCCL_P2P_DISABLE", "NCCL_IB_DISABLE", "FORK_LAUNCHED", "KMP_AFFINITY", "KMP_BLOCKTIME", "OMP_NUM_THREADS"),
        # devices of other makers, which are none of ours
        *("PT_HPU_LAZY_MODE", "DEEPSPEED_USE_HPU", "PYTORCH_ENABLE_MPS_FALLBACK", "CCL_WORKER_COUNT"),
    }
    package = Path(inspect.getfile(accelerate)).parent
    sources = [package / name for name in ("accelerator.py", "state.py", "optimizer.py", "data_loader.py")]
    sources.append(package / "utils" / "dataclasses.py")
    reads = r"(?:environ(?:\.get)?[\[(]|parse_(?:flag|choice)_from_env\()\s*f?\"([A-Z][A-Z0-9_]+)"
    names = {name for source in sources for name in re.findall(reads, source.read_text())}
    assert "ACCELERATE_GRADIENT_ACCUMULATION_STEPS" in names and len(names) > 30
    seen = {name for name in names if not name.startswith(environment.SETTINGS)}
    assert not seen - harmless, seen - harmless


def test_provenance_names_threads_and_instructions(monkeypatch):
    found = provenance()
    assert found["threads"] == str(torch.get_num_threads())
    assert found["instructions"] == torch.backends.cpu.get_cpu_capability()
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "SSE41")
    monkeypatch.setenv("OPENCV_IPP", "disabled")  # with which the benchmark is rendered with other walls
    said = ", ONEDNN_MAX_CPU_ISA=SSE41, OPENCV_IPP=disabled"
    assert provenance()["instructions"] == found["instructions"] + said


def test_one_thread_is_one_thread_also_where_the_earliest_runs_wrote_threads(monkeypatch, tmp_path):
    for count, words in ((1, ", 1 thread"), (2, ", 2 threads")):
        monkeypatch.setattr(torch, "get_num_threads", lambda count=count: count)
        assert device_name("cpu").endswith(words)
        early = {"last": {}, "provenance": {"device": f"A CPU, {count} threads"}}
        (tmp_path / "metrics.json").write_text(json.dumps(early))
        assert read_metrics(tmp_path / "metrics.json")["provenance"]["device"] == f"A CPU{words}"
