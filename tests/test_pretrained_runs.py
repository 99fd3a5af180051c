"""Runs that start from a VideoMAE checkpoint."""

import json

import pytest
import torch
from checkpoints import authors_names, reference, save_pre_trained, tiny
from runs import train_cut_off

from adatosk.experiments.grid import rivals
from adatosk.presets import PROFILES
from adatosk.pretrained import describe, load_encoder
from adatosk.synthetic import BenchmarkConfig, write_benchmark
from adatosk.train import Places, Trainer, train
from adatosk.workspace import Workspace


@pytest.fixture
def checkpoint(tmp_path):
    return save_pre_trained(tmp_path / "videomae.pth", authors_names(reference()))


def starting_from(weights, **changes):
    return PROFILES["smoke"].change(weights=weights.model_dump(), **changes)


def test_the_run_id_depends_on_the_digest_and_not_on_the_path(checkpoint):
    weights = describe(checkpoint)
    run = starting_from(weights)
    moved = starting_from(weights.change(path="elsewhere/same.pth"))
    other = starting_from(weights.change(sha256="0" * 64))
    ids = [each.run_id("digest") for each in (run, moved, other, PROFILES["smoke"])]
    assert ids[0] == ids[1]
    assert len(set(ids)) == 3
    second, moved_second = (PROFILES["smoke"].change(initial=each.model_dump()) for each in (run, moved))
    assert second.run_id("digest") == moved_second.run_id("digest") != ids[0]


def test_a_run_starts_from_one_thing_only_and_the_digest_has_to_be_one(checkpoint):
    weights = describe(checkpoint)
    with pytest.raises(ValueError, match="initial and weights both say what the run starts from"):
        starting_from(weights, initial=PROFILES["smoke"].model_dump())
    for digest in ("", "0" * 63, "G" * 64, "A" * 64):
        with pytest.raises(ValueError, match="sha256"):
            weights.change(sha256=digest)
    with pytest.raises(ValueError, match="path"):
        weights.change(path="")


def test_rivals_that_start_from_a_run_let_that_run_start_from_the_checkpoint(checkpoint):
    weights = describe(checkpoint)
    runs = {row.name: row.config for row in rivals(starting_from(weights))}
    second = [run for run in runs.values() if run.initial is not None]
    assert len(second) == 2
    assert all(run.weights is None and run.initial.weights == weights for run in second)
    assert all(run.weights == weights for run in runs.values() if run.initial is None)


def test_a_run_of_a_workspace_may_start_from_a_checkpoint(checkpoint, tmp_path):
    workspace = Workspace("smoke", PROFILES["smoke"], Places(tmp_path, tmp_path, tmp_path))
    weights = describe(checkpoint).model_dump()
    run_id = PROFILES["smoke"].change(weights=weights).run_id(workspace.manifest.digest)
    with pytest.raises(FileNotFoundError, match=run_id):
        workspace.run(weights=weights)
    with pytest.raises(ValueError, match="weights"):
        workspace.run(weights=True)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Rendered clips of two classes."""
    root = tmp_path_factory.mktemp("data")
    benchmark = BenchmarkConfig(
        name="pair", classes=("happy", "surprise"), train_clips=8, test_clips=4, size=48, frames=(64, 64)
    )
    write_benchmark(benchmark, root, workers=1, progress=False)
    return root


@pytest.fixture
def run(data, checkpoint):
    return starting_from(
        describe(checkpoint),
        model={"classes": ("happy", "surprise")},
        data={"manifest": str(data / "manifest.csv"), "cache_size": 32},
        train={"epochs": 2, "batch_size": 4},
        evaluation={"views": (1,), "complementary": False},
    )


@pytest.fixture
def places(data, tmp_path):
    return Places(data, tmp_path / "results", data / "cache", workers=0)


def test_a_run_starts_from_the_checkpoint_and_its_results_name_the_digest(run, places, checkpoint):
    trainer = Trainer(run, places, report=lambda line: None)
    trainer._set_up()
    model = tiny()
    load_encoder(model, checkpoint)
    expected, found = model.encoder.state_dict(), trainer._bare_model().encoder.state_dict()
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    lines = []
    run = run.change(train={"epochs": 1, "warmup_epochs": 0})
    folder = train(run, places, report=lines.append)
    assert sum("VideoMAE, pre-trained" in line for line in lines) == 1
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["config"]["weights"]["sha256"] == describe(checkpoint).sha256
    assert metrics["run_id"] == run.run_id(metrics["manifest"]["digest"])


def test_only_a_run_that_starts_afresh_reads_the_checkpoint(run, places, checkpoint):
    train_cut_off(run, places)
    checkpoint.unlink()
    lines = []
    assert (train(run, places, report=lines.append) / "metrics.json").is_file()
    assert any("resuming after epoch 1" in line for line in lines)
    with pytest.raises(FileNotFoundError, match="no such checkpoint"):
        train(run.change(seed=1), places, report=lines.append)


def test_a_run_whose_checkpoint_is_another_file_stops_before_anything_is_written(run, places, checkpoint):
    save_pre_trained(checkpoint, authors_names(reference()) | {"more": torch.ones(1)})
    with pytest.raises(ValueError, match=r"its SHA-256 is .* is expected"):
        train(run, places, report=lambda line: None)
    assert not (places.results / "runs").exists()
