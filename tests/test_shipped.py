"""The trained weights that come with the repository: their scores, their card, and what becomes of damaged ones."""

import shutil
from pathlib import Path

import pytest
import torch
from commands import command
from media import moving_frames, write_video

from adatosk import AdaTosk
from adatosk.clips import normalise
from adatosk.experiments.runs import headline_configs
from adatosk.experiments.shipping import CARD, card
from adatosk.manifests import resolve
from adatosk.predict import caveat
from adatosk.shipped import FILES, FOLDERS, PROFILE, shipped
from adatosk.utils import project
from adatosk.utils.project import PUBLISHED
from adatosk.utils.provenance import file_digest, read_metrics
from adatosk.video import read_clip
from adatosk.workspace import Run, open_workspace

PAIR = list(zip(FOLDERS, headline_configs(PROFILE).items(), strict=True))
by_model = pytest.mark.parametrize(("name", "run"), PAIR, ids=FOLDERS.values())


@by_model
def test_they_are_the_weights_of_the_published_scores(name, run):
    run_id, config = run
    metrics = read_metrics(shipped(name) / "metrics.json")
    published = Run(PUBLISHED / PROFILE / "runs" / run_id)
    assert metrics["run_id"] == run_id and metrics["last"] == published.metrics["last"]
    assert metrics["best_on_test"] == published.metrics["best_on_test"]
    assert metrics["weights"]["last"] == file_digest(shipped(name) / "model.safetensors")
    assert not metrics["provenance"]["commit"].endswith("-dirty")
    assert AdaTosk.from_pretrained(shipped(name)).config == config.model


@pytest.fixture(scope="module")
def clips():
    """The test clips of profile smoke as the shipped models see them, and their labels."""
    smoke = open_workspace("smoke")
    test = smoke.manifest.subset("test")
    paths = [resolve(smoke.places.root, path) for path in test["path"]]
    video = torch.stack([torch.from_numpy(read_clip(path, size=48)).permute(3, 0, 1, 2) for path in paths])
    return normalise(video), test["label"].tolist()


@by_model
def test_they_name_most_expressions_of_faces_that_they_have_not_seen(name, run, clips):
    video, labels = clips
    model = AdaTosk.from_pretrained(shipped(name)).eval()
    with torch.inference_mode():
        answers = model.classify(video, views=8).argmax(dim=1).tolist()
    right = sum(model.config.classes[answer] == label for answer, label in zip(answers, labels, strict=True))
    assert right >= 0.7 * len(labels)


@by_model
def test_the_card_is_computed_from_the_scores_and_says_what_they_know(name, run):
    text = (shipped(name) / CARD).read_text(encoding="utf-8")
    metrics = read_metrics(shipped(name) / "metrics.json")
    assert text == card(metrics)
    one = metrics["last"]["views_8"]
    assert f"| mean of 8 hard masks | {one['uar']:.1f} | {one['war']:.1f} |" in " ".join(text.split())
    assert "**Real faces.** These weights know rendered faces only." in text
    assert caveat(shipped(name)).endswith(": trained on embedded-demo: these weights know rendered faces only")


def test_damaged_ones_are_refused_with_the_way_to_restore_them(tmp_path):
    copy = shutil.copytree(shipped(), tmp_path / "copy")
    content = bytearray((copy / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (copy / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors: its SHA-256 is .*: damaged, .*; git checkout restores"):
        AdaTosk.from_pretrained(copy)


@pytest.mark.parametrize(("right", "wrong"), [('"temperature": 0.1', '"temperature": 0.3'), ("happy", "hoppy")])
def test_a_configuration_that_fits_the_weights_and_is_another_is_refused(tmp_path, right, wrong):
    copy = shutil.copytree(shipped(), tmp_path / "copy")
    text = (copy / "config.json").read_text(encoding="utf-8")
    assert right in text
    (copy / "config.json").write_text(text.replace(right, wrong), encoding="utf-8")
    with pytest.raises(
        ValueError, match=r"config\.json: another configuration than .*: damaged, .*; git checkout restores"
    ):
        AdaTosk.from_pretrained(copy)


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_gone_is_named(name, tmp_path, monkeypatch):
    copy = tmp_path / PROFILE / "weights" / "with-soft-mask"
    shutil.copytree(shipped(), copy)
    (copy / name).unlink()
    monkeypatch.setattr("adatosk.shipped.PUBLISHED", tmp_path)
    with pytest.raises(FileNotFoundError, match=f"{name}: missing, although the project ships it: git checkout"):
        shipped()


def test_another_name_and_an_installed_package_are_told_what_there_is(monkeypatch):
    with pytest.raises(ValueError, match="no model 'best' ships: choose with soft mask, without soft mask"):
        shipped("best")
    monkeypatch.setattr(project, "IS_CHECKOUT", False)
    done = command("predict", "me.mp4")
    line = "the model that ships with the project, taken where none is named, needs a checkout of the project: clone it"
    assert done.exit_code == 1 and done.stderr.startswith(f"error: {line}") and not done.stdout


@pytest.mark.parametrize("more", [[], ["--every", "1"], ["--out", "labels.csv"]], ids=["clip", "whole", "many"])
def test_predict_takes_them_where_no_model_is_named_and_says_so(more, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    video = write_video(Path("a.mp4"), moving_frames(64, 48, 48))
    done = command("predict", video, "--whole-frame", *more)
    assert done.exit_code == 0 and done.stderr == f"no --model, so the one that ships: {caveat(shipped())}\n"
    named = command("predict", video, "--whole-frame", "--model", shipped(), *more)
    assert named.stdout == done.stdout and named.stderr == f"{caveat(shipped())}\n"
