import json
import shutil
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import command
from filelock import FileLock
from runs import train_cut_off

from adatosk import manifests
from adatosk.config import RunConfig
from adatosk.evaluate import clip_masks
from adatosk.model import AdaTosk
from adatosk.presets import PROFILES
from adatosk.synthetic import BenchmarkConfig, write_benchmark
from adatosk.train import Places, Trainer, train
from adatosk.utils import seeds
from adatosk.utils.files import sealed, write_json
from adatosk.utils.provenance import read_metrics

CLASSES = ("happy", "surprise")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Rendered clips of two classes and a configuration that learns them in seconds."""
    root = tmp_path_factory.mktemp("data")
    benchmark = BenchmarkConfig(
        name="pair", classes=CLASSES, train_clips=16, test_clips=6, size=48, frames=(64, 64), hold=(0.4, 0.5)
    )
    write_benchmark(benchmark, root, workers=1, progress=False)
    return root


@pytest.fixture
def places(data, tmp_path):
    return Places(data, tmp_path / "results", data / "cache", workers=0)


def configure(root, /, **changes):
    config = PROFILES["smoke"].change(
        model={"classes": CLASSES},
        data={"manifest": str(root / "manifest.csv"), "cache_size": 32},
        train={"epochs": 3, "batch_size": 8, "eval_every": 2},
        evaluation={"views": (1, 2)},
    )
    return config.change(**changes)


def weights(folder):
    return AdaTosk.from_pretrained(folder / "checkpoints" / "last").state_dict()


def test_a_run_writes_scores_weights_log_and_provenance(data, places):
    lines = []
    folder = train(configure(data), places, report=lines.append)
    metrics = json.loads((folder / "metrics.json").read_text())
    assert set(metrics["last"]) == {"views_1", "views_2", "complementary"}
    assert metrics["best_on_test"]["epoch"] in (2, 3)
    assert set(metrics["provenance"]) == {
        "commit",
        "lock",
        "device",
        "threads",
        "instructions",
        "torch",
        "python",
    }
    assert metrics["manifest"]["digest"] and metrics["seed"] == 0
    assert RunConfig.model_validate(metrics["config"]) == configure(data)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [entry["epoch"] for entry in log] == [1, 2, 3]
    assert ["test_war_views_1" in entry for entry in log] == [False, True, True]
    assert (folder / "predictions.csv").read_text().count("\n") == 7
    assert not (folder / "checkpoints" / "resume").exists()
    assert any("epoch 3 of 3, loss " in line for line in lines)


def test_a_finished_run_is_not_trained_again_unless_its_weights_are_needed_and_gone(data, places):
    config = configure(data)
    folder = train(config, places, report=lambda line: None)
    before = (folder / "log.jsonl").stat().st_mtime_ns
    train(config, places, need_checkpoint=True, report=lambda line: None)
    (folder / "checkpoints" / "last" / "model.safetensors").unlink()
    train(config, places, report=lambda line: None)
    assert (folder / "log.jsonl").stat().st_mtime_ns == before
    train(config, places, need_checkpoint=True, report=lambda line: None)
    assert (folder / "checkpoints" / "last" / "model.safetensors").is_file()


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not(data, places, tmp_path):
    first, second, third = (
        weights(train(configure(data, seed=seed), replace(places, results=tmp_path / name), report=lambda line: None))
        for seed, name in ((0, "a"), (0, "b"), (1, "c"))
    )
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not all(torch.equal(first[name], third[name]) for name in first)


def test_a_run_that_was_cut_off_goes_on_with_the_same_result(data, places, tmp_path, monkeypatch):
    ticks = count()
    monkeypatch.setattr("adatosk.train.time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    whole = train(configure(data), places, report=lambda line: None)
    cut = replace(places, results=tmp_path / "cut")
    train_cut_off(configure(data), cut)
    lines = []
    folder = train(configure(data), cut, report=lines.append)
    assert any("resuming after epoch 1" in line for line in lines)
    assert all(torch.equal(weights(whole)[name], value) for name, value in weights(folder).items())
    assert len((folder / "log.jsonl").read_text().splitlines()) == 3
    seconds = [json.loads((run / "metrics.json").read_text())["train_seconds"] for run in (whole, folder)]
    assert seconds[0] == seconds[1] > 0


@pytest.mark.parametrize("last", ["saving", "resume"])
def test_a_run_cut_off_while_it_saves_goes_on_with_the_same_result(data, places, tmp_path, monkeypatch, last):
    """The second save was about to move the folder ``last`` when it was cut off; its epoch is logged already."""
    whole = train(configure(data), places, report=lambda line: None)
    cut, moved, rename = replace(places, results=tmp_path / "cut"), [], Path.rename

    def stop_before(path, target):
        moved.append(path.name)
        if moved.count(last) == (2 if last == "saving" else 1):
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", stop_before)
        with pytest.raises(KeyboardInterrupt):
            train(configure(data), cut, report=lambda line: None)
    (log,) = cut.results.glob("runs/*/log.jsonl")
    assert len(log.read_text().splitlines()) == 2
    lines = []
    folder = train(configure(data), cut, report=lines.append)
    assert any("resuming after epoch 1" in line for line in lines)
    assert all(torch.equal(weights(whole)[name], value) for name, value in weights(folder).items())
    assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [1, 2, 3]
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best_on_test", "last"}


def test_training_learns_what_an_untrained_model_and_the_majority_cannot(data, places):
    """On sixteen clips the loss falls far below ln 2 = 0.69, which is chance."""
    config = configure(data, train={"epochs": 110, "warmup_epochs": 2, "base_lr": 0.1, "eval_every": 110})
    folder = train(config, places, report=lambda line: None)
    log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert log[0]["classification_loss"] > 0.6
    assert log[-1]["classification_loss"] < 0.5


def test_bf16_trains_to_nearly_the_same_loss(data, places, tmp_path):
    logs = []
    for precision in ("no", "bf16"):
        config = configure(data, train={"precision": precision})
        folder = train(config, replace(places, results=tmp_path / precision), report=lambda line: None)
        logs.append([json.loads(line)["loss"] for line in (folder / "log.jsonl").read_text().splitlines()])
    assert logs[0] != logs[1]
    assert logs[0] == pytest.approx(logs[1], rel=0.05)


def test_a_compiled_run_in_bf16_trains_as_the_plain_one_does(data, places, tmp_path, monkeypatch):
    """As profile paper trains, but for the compiler's C++ part."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    config = configure(data, train={"precision": "bf16", "epochs": 2})
    plain = train(config, places)
    compiled = train(config.change(train={"compile": True}), replace(places, results=tmp_path / "compiled"))
    logs = [
        [json.loads(line)["loss"] for line in (f / "log.jsonl").read_text().splitlines()] for f in (plain, compiled)
    ]
    assert logs[1] == pytest.approx(logs[0], rel=0.02)
    assert weights(compiled).keys() == weights(plain).keys()


def test_masks_at_test_depend_on_the_clip_and_not_on_its_batch():
    model = PROFILES["smoke"].model
    together = clip_masks(torch.tensor([3, 5, 9]), model, 2, False, seed=0)
    alone = clip_masks(torch.tensor([5]), model, 2, False, seed=0)
    assert all(torch.equal(a[1:2], b) for a, b in zip(together, alone, strict=True))
    assert not torch.equal(together[0], clip_masks(torch.tensor([3, 5, 9]), model, 2, False, seed=1)[0])
    parts = clip_masks(torch.tensor([3]), model, 1, True, seed=0)
    assert (torch.stack(parts).sum(dim=0) == 1).all()


def test_streams_of_other_names_differ():
    draws = {tuple(torch.rand(3, generator=seeds.generator(*name)).tolist()) for name in [(0, 1), (1, 0), (0, 1, 0)]}
    assert len(draws) == 3


def run_command(config, data, tmp_path):
    path = tmp_path / "run.json"
    path.write_text(config if isinstance(config, str) else config.model_dump_json())
    done = command("train", path, "--root", data, "--results", tmp_path / "out", "--cache", tmp_path / "c")
    return done.exit_code, done.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": {"classes": ("happy", "sad")}}, "are not the model's"),
        ({"train": {"batch_size": 64}}, "lower batch_size"),
        ({"data": {"manifest": "nowhere.csv"}}, "nowhere.csv"),
        ({"data": {"exclusions": ("ghost",)}}, "ghost"),
        ({"train": {"base_lr": 1e12}}, "lower train.base_lr"),
    ],
)
def test_the_command_says_what_is_wrong_and_writes_no_scores(change, message, data, tmp_path):
    status, error = run_command(configure(data, **change), data, tmp_path)
    assert status == 1
    last = error.splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert not list(tmp_path.rglob("metrics.json"))


def test_the_command_names_a_broken_configuration_and_a_broken_clip(data, tmp_path):
    status, error = run_command('{"model": {"width": "wide"}}', data, tmp_path)
    assert status == 1 and "run.json: not a valid run configuration" in error and "model.width" in error
    broken = tmp_path / "broken"
    (broken / "videos").mkdir(parents=True)
    for video in (data / "videos").iterdir():
        (broken / "videos" / video.name).write_bytes(video.read_bytes())
    victim = sorted((broken / "videos").iterdir())[3]
    victim.write_bytes(b"")
    for cache_size in (32, None):
        config = configure(data, data={"cache_size": cache_size})
        status, error = run_command(config, broken, tmp_path)
        assert status == 1 and victim.stem in error, error
    excluded = configure(data, data={"cache_size": None, "exclusions": (victim.stem,)}, train={"batch_size": 5})
    status, error = run_command(excluded, broken, tmp_path)
    assert status == 0, error


def test_a_second_training_that_is_cut_off_keeps_the_first_ones_log(data, places):
    folder = train(configure(data), places, report=lambda line: None)
    before = (folder / "log.jsonl").read_text()
    shutil.rmtree(folder / "checkpoints")
    train_cut_off(configure(data), places, need_checkpoint=True)
    assert (folder / "log.jsonl").read_text() == before
    train(configure(data), places, need_checkpoint=True, report=lambda line: None)
    after = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert [entry["loss"] for entry in after] == [json.loads(line)["loss"] for line in before.splitlines()]
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best_on_test", "last"}


def test_unknown_exclusions_are_named_before_clips_are_decoded(data, places, tmp_path):
    fresh = replace(places, cache=tmp_path / "cache")
    with pytest.raises(ValueError, match="has no clip 'nobody'"):
        train(configure(data, data={"exclusions": ("nobody",)}), fresh, report=lambda line: None)
    assert not fresh.cache.exists()


def test_a_class_without_training_clips_is_named_before_clips_are_decoded(data, places, tmp_path):
    class SaidError(Exception):
        pass

    def report(line: str) -> None:
        raise SaidError(line)

    clips = manifests.load(data / "manifest.csv").subset("train")
    first = tuple(clips["id"][clips["label"] == CLASSES[0]])
    fresh = replace(places, cache=tmp_path / "cache")
    with pytest.raises(SaidError, match=f"no training clips of {CLASSES[0]}, which it cannot learn"):
        train(configure(data, data={"exclusions": first}), fresh, report=report)
    assert not fresh.cache.exists()


def test_a_run_that_another_process_trains_is_left_alone(data, places, monkeypatch):
    """On several devices it fails at once; alone it waits, which takes too long to show."""
    trainer = Trainer(configure(data), places)
    places.results.mkdir(parents=True)
    with FileLock(places.results / f".{trainer.run_id}.lock"):
        monkeypatch.setenv("WORLD_SIZE", "2")
        with pytest.raises(OSError, match=f"{trainer.run_id}.lock"):
            trainer.run()
    assert not trainer.folder.exists()


def test_a_batch_that_does_not_divide_is_refused_before_anything_is_touched(data, places, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "6")
    with pytest.raises(ValueError, match=r"batch_size 8 does not divide over 6 processes: start fewer \(1, 2, 4\)"):
        train(configure(data), places, report=lambda line: None)
    assert not places.results.exists()


def test_the_command_line_says_that_a_stopped_run_resumes(data, places, tmp_path, monkeypatch):
    def stop(self, epoch):
        raise KeyboardInterrupt

    path = tmp_path / "run.json"
    path.write_text(configure(data).model_dump_json())
    monkeypatch.setattr(Trainer, "_train_epoch", stop)
    options = ["--root", data, "--results", places.results, "--cache", places.cache, "--workers", 0]
    done = command("train", path, *options)
    assert done.exit_code == 130
    assert done.stderr.endswith("interrupted: the same command resumes after the last whole epoch\n")


def test_scores_on_another_form_of_the_same_clips_are_not_taken_for_these(data, places):
    path = train(configure(data), places, report=lambda line: None) / "metrics.json"
    metrics = read_metrics(path)
    write_json(path, sealed(metrics | {"manifest": metrics["manifest"] | {"version": "whole frames"}}))
    with pytest.raises(ValueError, match=r"metrics\.json: was made on 'whole frames', and the manifest is of '1'"):
        train(configure(data), places, report=lambda line: None)
