"""The state that a run resumes from: what it holds, that damage is named, and that nothing of it is unpickled."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import same, short_run, train_cut_off, weights_of

from adatosk.clips import ClipDataset, make_loader
from adatosk.evaluate import predict_split
from adatosk.manifests import load
from adatosk.model import AdaTosk
from adatosk.predict import predict
from adatosk.train import Places, Trainer, train
from adatosk.utils.project import PROJECT


def quiet(_):
    pass


def resume_folder(places):
    (folder,) = places.results.glob("runs/*/checkpoints/resume")
    return folder


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"train": {"precision": "bf16"}},
        {"model": {"head_norm": "batch"}},
        {"train": {"warmup_epochs": 0, "clip_grad": 0.1, "rec_weight": 0.0}},
    ],
)
def test_resumed_runs_end_with_the_bits_of_undisturbed_ones(changes, data, places, tmp_path):
    config = short_run(data, **changes)
    whole = train(config, places, report=quiet)
    cut = replace(places, results=tmp_path / "cut")
    train_cut_off(config, cut)
    torch.manual_seed(99)  # a resumed run finds other random streams than it left
    lines = []
    resumed = train(config, cut, report=lines.append)
    assert any("resuming after epoch 1" in line for line in lines)
    for name in ("last", "best_on_test"):
        assert same(weights_of(whole, name), weights_of(resumed, name))
    first, second = (json.loads((folder / "metrics.json").read_text()) for folder in (whole, resumed))
    assert (first["last"], first["best_on_test"], first["weights"]) == (
        second["last"],
        second["best_on_test"],
        second["weights"],
    )


def test_two_processes_resume_with_the_bits_of_undisturbed_ones(data, tmp_path):
    """Under torchrun with gloo, on an odd number of test clips; the state of two is then refused by one."""
    manifest = load(data / "manifest.csv")
    left_out = manifest.subset("test")["id"].iloc[0]
    config = short_run(data, model={"head_norm": "batch"}, data={"exclusions": (left_out,)})
    (tmp_path / "run.json").write_text(config.model_dump_json())
    script = tmp_path / "both.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom runs import train_cut_off\nfrom adatosk.cli import app\n"
        "from adatosk.config import RunConfig\nfrom adatosk.train import Places, train\n"
        "data, out = map(Path, sys.argv[1:])\nconfig = RunConfig.read(out / 'run.json')\n"
        "places = ['--root', data, '--results', out / 'whole', '--cache', data / 'cache', '--workers', 0]\n"
        "app(list(map(str, ['train', out / 'run.json', *places])), standalone_mode=False)\n"
        "cut = Places(data, out / 'cut', data / 'cache', workers=0)\ntrain_cut_off(config, cut)\ntrain(config, cut)\n"
        "train_cut_off(config, Places(data, out / 'left', data / 'cache', workers=0))\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    path = os.pathsep.join([str(PROJECT / "tests" / "helpers"), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
    done = subprocess.run(
        [*command, str(script), str(data), str(tmp_path)], capture_output=True, text=True, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Once each, in the two trainings that report: no copy of the other process trained beside it.
    printed = {
        line: done.stdout.count(line) for line in ("resuming after epoch 1", "epoch 3 of 3,", "process 1 of 2 on")
    }
    assert list(printed.values()) == [1, 2, 2]
    (whole,), (cut,) = ((tmp_path / name / "runs").iterdir() for name in ("whole", "cut"))
    assert same(weights_of(whole), weights_of(cut))
    metrics = json.loads((cut / "metrics.json").read_text())
    assert metrics["processes"] == 2 and metrics["last"]["views_1"]["clips"] == 3
    assert len((whole / "log.jsonl").read_text().splitlines()) == 3
    # What two processes predict together is what one predicts, clip by clip.
    clips = ClipDataset.of_split(config, manifest, data, "test")
    model = AdaTosk.from_pretrained(whole / "checkpoints" / "last")
    alone = predict_split(model, make_loader(clips, 1, workers=0), config.evaluation)
    assert len(clips) == 3
    assert (whole / "predictions.csv").read_text() == alone.table(clips.ids, manifest.classes).to_csv(index=False)
    left = Places(data, tmp_path / "left", data / "cache", workers=0)
    assert {path.name for path in resume_folder(left).glob("random_*")} == {
        "random_0.safetensors",
        "random_1.safetensors",
    }
    with pytest.raises(ValueError, match=r"state\.json: saved by 2 processes, and these are 1: resume with as many"):
        train(config, left, report=quiet)


def test_every_file_of_a_state_is_checked(data, places):
    config = short_run(data)
    train_cut_off(config, places)
    folder = resume_folder(places)
    names = sorted(path.name for path in folder.iterdir())
    assert names == [
        "best.safetensors",
        "model.safetensors",
        "optimizer.safetensors",
        "progress.json",
        "random_0.safetensors",
        "state.json",
    ]
    for name in names:
        path = folder / name
        content = path.read_bytes()
        flipped = bytearray(content)
        flipped[len(content) * 2 // 3] ^= 0x10
        for damaged in (bytes(flipped), content[:40], b"", None):
            path.unlink() if damaged is None else path.write_bytes(damaged)
            with pytest.raises(
                ValueError, match=f"{path}: .*(damaged|missing).*delete the folder to start anew"
            ) as error:
                train(config, places, report=quiet)
            assert "\n" not in str(error.value)
            path.write_bytes(content)
    assert (train(config, places, report=quiet) / "metrics.json").is_file()


def test_a_state_of_another_run_and_foreign_files_are_refused(data, places, tmp_path):
    config, other = short_run(data), short_run(data, seed=1)
    theirs = replace(places, results=tmp_path / "theirs")
    for run, where in ((config, places), (other, theirs)):
        train_cut_off(run, where)
    folder = resume_folder(places)
    planted = folder / "custom_checkpoint_0.pkl"
    planted.write_bytes(b"cos\nsystem\n(S'touch " + str(tmp_path / "ran").encode() + b"'\ntR.")
    with pytest.raises(ValueError, match=rf"{planted}: not a file of the state: move it away, or delete the folder"):
        train(config, places, report=quiet)
    assert not (tmp_path / "ran").exists()
    shutil.rmtree(folder)
    shutil.copytree(resume_folder(theirs), folder)
    with pytest.raises(
        ValueError, match=r"state\.json: of another version, or of run .* and not .*: delete the folder"
    ):
        train(config, places, report=quiet)


def test_nothing_is_unpickled_from_training_to_prediction(data, places, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("something is unpickled")

    class Refusing:
        __init__ = refuse

    config = short_run(data)
    for name, value in {"load": refuse, "loads": refuse, "Unpickler": Refusing, "_Unpickler": Refusing}.items():
        monkeypatch.setattr(pickle, name, value)
    with pytest.raises(AssertionError, match="unpickled"):
        pickle.loads(pickle.dumps(1))
    train_cut_off(config, places)
    folder = train(config, places, report=quiet)
    shutil.rmtree(folder / "checkpoints")
    train(config, places, need_checkpoint=True, report=quiet)
    model = AdaTosk.from_pretrained(folder / "checkpoints" / "last")
    video = next((data / "videos").iterdir())
    assert predict(video, model, locate_face=False).label in config.model.classes


def test_a_state_holds_one_whole_state_at_every_moment(data, places, monkeypatch):
    """While it is replaced, the one before is there."""
    trainer = Trainer(short_run(data), places, report=quiet)
    rename, seen = Path.rename, []

    def look(path, target):
        done = rename(path, target)
        if path.parent.name == "checkpoints" and path.name in ("resume", "saving"):
            seen.append([name for name in ("resume", "previous") if (trainer.checkpoints / name).is_dir()])
        return done

    monkeypatch.setattr(Path, "rename", look)
    trainer.run()
    assert seen[:3] == [["resume"], ["previous"], ["resume", "previous"]]
