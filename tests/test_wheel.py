"""A wheel of the package in an environment and a folder of its own: what works there, and what needs a checkout."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest
from media import moving_frames, write_video

from adatosk.manifests import Manifest
from adatosk.presets import PROFILES
from adatosk.synthetic import BENCHMARKS
from adatosk.utils.project import PROJECT

SETS = ("crema_d", "dfew", "ferv39k", "mafw", "ravdess")


def call(*command: str | Path, folder: Path, fails: bool = False) -> str:
    """Standard output, or standard error of what ``fails``, of a command that does not see this checkout."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, timeout=600
    )
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr if fails else done.stdout


def hook(name: str, source: Path, to: Path) -> Path:
    """Build as pip and uv do, by setuptools, which is installed, so that nothing is fetched."""
    to.mkdir()
    code = f"import sys; from setuptools import build_meta; print(build_meta.{name}(sys.argv[1]))"
    return to / call(sys.executable, "-c", code, to, folder=source).splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a source archive of the project, where somebody made a list that may not be passed on."""
    folder = tmp_path_factory.mktemp("build")
    for name in ("adatosk", "data_manifests", "tests", "notebooks"):
        shutil.copytree(PROJECT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, folder / "source")
    (folder / "source" / "data_manifests" / "dfew.csv").write_text("# name: dfew\n")
    archive = hook("build_sdist", folder / "source", folder / "archive")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return hook("build_wheel", folder / archive.name.removesuffix(".tar.gz"), folder / "wheel")


def installer(python: Path) -> list[str]:
    """uv, which `make setup` puts beside the environment, else pip; neither fetches anything."""
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.prefix, "uv", "bin")), os.environ["PATH"]]))
    if uv:
        return [uv, "pip", "install", "--quiet", "--no-config", "--offline", "--no-deps", "--python", str(python)]
    return [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-index", "--no-deps"]


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """Of an environment with the wheel, and what is installed here but for the checkout."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False)
    paths = {name: Path(sysconfig.get_path(name, "venv", {"base": str(folder)})) for name in ("scripts", "purelib")}
    # A path in a .pth file is searched, but the .pth files there, such as the checkout's, are not read.
    (paths["purelib"] / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    python = paths["scripts"] / ("python.exe" if os.name == "nt" else "python")
    call(*installer(python), wheel, folder=folder)
    return python


def test_a_wheel_holds_the_package_the_cards_and_the_embedded_manifests_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as packed:
        names = set(packed.namelist())
    about = {name for name in names if ".dist-info/" in name}
    code = {path.relative_to(PROJECT).as_posix() for path in (PROJECT / "adatosk").rglob("*.py")}
    data = {*(f"{name}.yaml" for name in SETS), "embedded.yaml", *(f"{name}.csv" for name in BENCHMARKS)}
    assert names - about == code | {f"adatosk/data_manifests/{name}" for name in data}
    assert any(name.endswith("/LICENSE") for name in about)


LOOK = """
import json
import adatosk, torch
from adatosk import PROFILES, create_model
from adatosk.datasets.cards import load_card
from adatosk.manifests import load, manifest_of
from adatosk.synthetic import BENCHMARKS, build_manifest
from adatosk.utils.project import IS_CHECKOUT, MANIFESTS

model = create_model("adatosk_tiny").eval()
print(json.dumps({
    "package": adatosk.__file__,
    "checkout": IS_CHECKOUT,
    "logits": list(model.classify(torch.zeros(1, 3, 16, 32, 32)).shape),
    "profiles": list(PROFILES),
    "cards": [load_card(path.stem).name for path in sorted(MANIFESTS.glob("*.yaml")) if path.stem != "embedded"],
    "same": [build_manifest(BENCHMARKS[n]).digest == load(MANIFESTS / f"{n}.csv").digest for n in BENCHMARKS],
    "smoke": len(manifest_of(PROFILES["smoke"]).clips),
}))
"""


def test_models_presets_cards_and_manifests_come_with_it(python, tmp_path):
    found = json.loads(call(python, "-c", LOOK, folder=tmp_path))
    assert Path(found["package"]).is_relative_to(python.parent.parent) and not found["checkout"]
    assert found["logits"][0] == 1 and found["profiles"] == list(PROFILES)
    assert found["cards"] == list(SETS)
    assert found["same"] and all(found["same"]) and found["smoke"] > 0
    assert not list(tmp_path.iterdir())


@pytest.fixture
def own(tmp_path) -> Path:
    """A folder with clips, their manifest and a run's configuration, in a repository that is not this one."""
    for number in range(8):
        write_video(tmp_path / "clips" / f"{number}.mp4", moving_frames(64, 48, 48, number))
    table = {"path": [f"{n}.mp4" for n in range(8)], "id": list("abcdefgh"), "label": ["happy", "sad"] * 4}
    table["split"] = ["train"] * 6 + ["test"] * 2
    Manifest("own", "1", ("happy", "sad"), pd.DataFrame(table)).save(tmp_path / "own.csv")
    config = PROFILES["smoke"].change(
        model={"classes": ("happy", "sad")},
        data={"manifest": "own.csv", "cache_size": 32},
        train={"epochs": 1, "warmup_epochs": 0, "batch_size": 6, "eval_every": 1},
        evaluation={"views": (1,)},
    )
    (tmp_path / "run.json").write_text(config.model_dump_json())
    (tmp_path / "requirements.lock").write_text("somebody else's\n")
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    call("git", "init", "--quiet", folder=tmp_path)
    call("git", *who, "commit", "--quiet", "--allow-empty", "--message", "theirs", folder=tmp_path)
    return tmp_path


def test_a_run_of_ones_own_is_trained_used_and_exported_where_one_is(python, own):
    said = call(python, "-m", "adatosk.train", "run.json", "--root", "clips", "--workers", "0", folder=own)
    (run,) = (own / "outputs" / "own" / "runs").iterdir()
    assert own / said.splitlines()[-1] == run and (own / "data" / "cache").is_dir()
    source = json.loads((run / "metrics.json").read_text())["provenance"]
    assert source["commit"] == f"adatosk {version('adatosk')}" and source["lock"] == "missing"
    model = run / "checkpoints" / "last"
    said = call(python, "-m", "adatosk.predict", "clips/0.mp4", "--model", model, "--whole-frame", folder=own)
    assert said.split()[0] in ("happy", "sad")
    said = call(python, "-m", "adatosk.export", model, "--views", "2", "--program", "model.pt2", folder=own)
    assert said.splitlines() == ["model.pt2"] and (own / "model.pt2").stat().st_size > 10_000


def test_what_needs_a_checkout_says_so(python, tmp_path):
    code = "from adatosk.utils.project import need_checkout; need_checkout('adatosk report')"
    line = "adatosk report needs a checkout of the project: clone it, and run make setup there"
    assert call(python, "-c", code, folder=tmp_path, fails=True).strip().endswith(line)
    said = call(python, "-m", "adatosk", "report", folder=tmp_path, fails=True)
    assert line in " ".join(said.split()) and "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_an_unpacked_archive_takes_no_other_repositorys_commit_for_its_own(own):
    folder = own / "unpacked"
    shutil.copytree(PROJECT / "adatosk", folder / "adatosk", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "Snakefile").touch()
    code = "from adatosk.utils.provenance import git_commit; print(git_commit())"
    assert call(sys.executable, "-c", code, folder=folder).strip() == "unknown"
