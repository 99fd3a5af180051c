"""The Snakefile and its make targets: what they would do, and what stays when a job fails, is killed or has company."""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from pathlib import Path

import nbformat
import pytest
import yaml
from filelock import FileLock, Timeout

from adatosk.experiments.notebooks import notebook_cards
from adatosk.experiments.runs import configs, headline_configs, weighed
from adatosk.manifests import manifest_of
from adatosk.presets import PROFILES
from adatosk.utils.launch import gpu_count
from adatosk.utils.project import PROJECT

# Nothing of it may be read a second time, by make, YAML, Snakemake, a shell or papermill.
HOSTILE = 'it\'s "a" $HOME $(touch y) `touch y`; touch y # {x} \\\nnext: [1'


def snakemake_command(folder, *arguments: str, tree: Path = PROJECT, **variables: str) -> tuple[list[str], dict]:
    """The command that works in a folder with the Snakefile and the package of ``tree``, and its environment."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(tree / "Snakefile"), "--directory", str(folder)]
    command += ["--cores", "1", *arguments, "--nolock", "--rerun-incomplete", "--rerun-triggers", "mtime"]
    # Without GPUs, unless a test pretends some.
    return command, os.environ | {"PYTHONPATH": str(tree), "CUDA_VISIBLE_DEVICES": ""} | variables


def snakemake(folder, *arguments: str, tree: Path = PROJECT, **variables: str) -> subprocess.CompletedProcess:
    command, environment = snakemake_command(folder, *arguments, tree=tree, **variables)
    # There, because the package of the current folder comes before that of PYTHONPATH.
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)


def dry_run(folder, profile: str, grid: str, *options: str, **given) -> subprocess.CompletedProcess:
    return snakemake(folder, "--dry-run", *options, "--config", f"profile={profile}", f"grid={grid}", **given)


def planned(folder, grid: str = "pair") -> str:
    """What a dry run of profile demo says."""
    done = dry_run(folder, "demo", grid)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def clone(tmp_path):
    """Notebooks as they come with the repository."""
    shutil.copytree(PROJECT / "notebooks", tmp_path / "notebooks")
    return tmp_path


def test_a_fresh_clone_trains_the_pair_and_takes_the_other_runs_from_the_published_ones(clone):
    shutil.copytree(PROJECT / "results" / "demo" / "runs", clone / "results" / "demo" / "runs")
    plan = planned(clone)
    assert plan.count("rule train:") == 2 and plan.count("rule notebook_") == 6
    for run_id in configs("demo"):
        folders = [clone / name / "demo" / "runs" / run_id for name in ("results", "outputs")]
        published, copied = ((folder / "metrics.json").read_bytes() for folder in folders)
        assert published == copied


def test_the_pair_alone_is_trained_without_notebooks_although_its_scores_are_published(clone):
    plan = planned(clone, "runs")
    assert plan.count("rule train:") == 2 and "rule notebook_" not in plan
    finish(clone, headline_configs("demo"), weights=True)
    assert "Nothing to be done" in planned(clone, "runs")


def finish(clone, run_ids, weights: bool) -> None:
    """Runs that are done, older than the notebooks that read them."""
    for run_id in run_ids:
        folder = clone / "outputs" / "demo" / "runs" / run_id
        (folder / "checkpoints" / "last").mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").touch()
        if weights:
            (folder / "checkpoints" / "last" / "model.safetensors").touch()
    results = clone / "outputs" / "demo"
    for name, card in notebook_cards(clone / "notebooks").items():
        for made in (results / "notebooks" / f"{name}.ipynb", *(results / file for file in card.files())):
            made.parent.mkdir(exist_ok=True)
            made.touch()
            os.utime(made)


def test_nothing_is_left_to_do_when_weights_and_notebooks_are_there(clone):
    finish(clone, configs("demo", ("table1",)), weights=False)
    finish(clone, headline_configs("demo"), weights=True)
    assert "Nothing to be done" in planned(clone)


def test_a_grid_whose_scores_are_there_is_not_trained_again(clone):
    finish(clone, configs("demo"), weights=False)
    finish(clone, headline_configs("demo") | weighed("demo"), weights=True)
    assert "Nothing to be done" in planned(clone, "all")


def test_just_the_runs_that_are_gone_are_trained_one_that_starts_from_another_after_it(clone):
    finish(clone, configs("demo"), weights=False)
    finish(clone, headline_configs("demo") | weighed("demo"), weights=True)
    runs, digest = configs("demo"), manifest_of(PROFILES["demo"]).digest
    first = next(run_id for run_id, run in runs.items() if run.seed == 1 and run.initial is None)
    second = next(run_id for run_id, run in runs.items() if run.initial is not None)
    for gone in (first, second):
        shutil.rmtree(clone / "outputs" / "demo" / "runs" / gone)
    # And one that was cut off when it had written its weights is finished.
    cut_off = next(iter(headline_configs("demo")))
    (clone / "outputs" / "demo" / "runs" / cut_off / "metrics.json").unlink()
    plan = planned(clone, "all")
    ids = {rule: re.findall(rf"rule {rule}:.*?run_id=(\w+)", plan, re.DOTALL) for rule in ("train", "finish")}
    assert sorted(ids["train"]) == sorted([first, second, runs[second].initial.run_id(digest)])
    assert ids["finish"] == [cut_off]


def test_a_table_or_figure_that_is_gone_is_made_again_without_training(clone):
    finish(clone, configs("demo"), weights=False)
    finish(clone, headline_configs("demo") | weighed("demo"), weights=True)
    for name in ("tables/table3.csv", "figures/table4_rows.pdf"):
        (clone / "outputs" / "demo" / name).unlink()
    plan = planned(clone, "all")
    assert "rule train:" not in plan and plan.count("rule notebook_") == 2
    assert plan.count("rule notebook_06_ablation") == plan.count("rule notebook_07_ablation") == 1


def test_a_real_set_without_manifest_says_how_to_make_it(clone):
    done = dry_run(clone, "paper-mafw", "all")
    said = done.stdout + done.stderr
    assert done.returncode != 0
    assert "mafw.csv: no such manifest" in said and "-r dataset mafw -r root FOLDER -p fold 1" in said


def test_an_unknown_profile_is_named_whatever_it_holds(clone):
    done = dry_run(clone, "demo; touch y", "pair")
    assert done.returncode != 0 and "unknown profile 'demo; touch y': choose smoke, demo" in done.stdout + done.stderr


def test_reuse_is_yes_or_no(clone):
    done = snakemake(clone, "--dry-run", "--config", "profile=demo", "reuse=never")
    assert done.returncode != 0 and "reuse=never: say yes or no" in done.stdout + done.stderr


def commands(said: str, module: str) -> list[list[str]]:
    """The shell commands of a dry run that start a module, as a shell takes them apart."""
    found = re.findall(r"^Shell command: (.*?)(?=\n\n|\Z)", said, re.MULTILINE | re.DOTALL)
    return [words for words in map(shlex.split, found) if words[1:3] == ["-m", module]]


def test_a_root_of_any_characters_reaches_training_and_notebooks_as_it_is(clone):
    done = dry_run(clone, "smoke", "pair", "--printshellcmds", ADATOSK_ROOT=HOSTILE)
    assert done.returncode == 0, done.stderr
    said = done.stdout + done.stderr
    training, notebooks = commands(said, "adatosk.train"), commands(said, "papermill")
    assert len(training) == said.count("rule train:") > 0 and len(notebooks) == said.count("rule notebook_") > 0
    assert all(f"--root={HOSTILE}" in words for words in training)
    rooted = [words[words.index("root") + 1] for words in notebooks if "root" in words]
    assert rooted and set(rooted) == {HOSTILE}
    # papermill would otherwise take a number or a word such as True for one.
    assert all(words[words.index("root") - 1] == "-r" for words in notebooks if "root" in words)


PROFILES_OF_JOBS = sorted((PROJECT / "workflow" / "profiles").glob("*.yaml"))


def test_the_profiles_give_gpus_to_runs_and_to_the_notebooks_that_load_weights_or_train():
    cards = {f"notebook_{name}": card for name, card in notebook_cards(PROJECT / "notebooks").items()}
    computing = {name for name, card in cards.items() if card.computes}
    assert [path.stem for path in PROFILES_OF_JOBS] == ["local", "slurm-nodes", "slurm"]
    for path in PROFILES_OF_JOBS[1:]:
        profile = yaml.safe_load(path.read_text())
        resources = profile["set-resources"]
        assert {rule for rule, given in resources.items() if "gres" in given} == computing | {"train", "finish"}
        assert resources["train"] == resources["finish"]
        assert resources["train"].get("nodes") == resources["train"].get("tasks")
        assert all(gpu_count(given["gres"]) > 0 for given in resources.values() if "gres" in given)
        # One that trains has as much of a GPU's node as a run that stays on one; it is one process.
        run = gpu_count(resources["train"]["gres"])
        for name in (name for name, card in cards.items() if card.trains):
            given = resources[name]
            assert gpu_count(given["gres"]) == 1 and "nodes" not in given
            assert given["runtime"] == resources["train"]["runtime"]
            assert run * given["mem_mb"] >= resources["train"]["mem_mb"]
            assert run * profile["set-threads"][name] >= profile["set-threads"]["train"]


def test_jobs_of_a_real_set_share_the_gpus_and_cores_of_a_machine(clone):
    """One run of the paper's on each of two GPUs, with its half of the cores to load clips, after one preparation."""
    for name in ("adatosk", "data_manifests"):
        shutil.copytree(PROJECT / name, clone / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "Snakefile", clone)
    header = f"# name: ravdess\n# version: 1\n# classes: {' '.join(PROFILES['paper-ravdess'].model.classes)}\n"
    rows = "".join(f"{fold}.mp4,clip{fold},neutral,{fold},,64\n" for fold in (1, 2))
    (clone / "data_manifests" / "ravdess.csv").write_text(f"{header}path,id,label,fold,split,frames\n{rows}")
    local = ["--workflow-profile", str(PROFILES_OF_JOBS[0]), "--printshellcmds"]
    done = dry_run(clone, "paper-ravdess", "all", *local, "--cores", "8", tree=clone, CUDA_VISIBLE_DEVICES="4,5")
    said = done.stdout + done.stderr
    assert done.returncode == 0 and said.count("rule prepare:") == 1, said
    launched = commands(said, "adatosk.utils.launch")
    training = [words for words in launched if "adatosk.train" in words]
    assert len(training) == said.count("rule train:") > 0 and said.count("threads: 4") == len(launched)
    assert all({"--gres=gpu:1", "--share=1", "--nodes=1", "--workers=4"} <= set(words) for words in training)
    evaluating = [words for words in launched if "papermill" in words]
    assert {Path(words[words.index("papermill") + 1]).stem for words in evaluating} == {
        name for name, card in notebook_cards(clone / "notebooks").items() if card.computes
    }


def test_processes_that_a_batch_does_not_divide_over_are_refused_before_anything_starts(clone):
    done = dry_run(clone, "smoke", "pair", "--set-resources", "train:gres=gpu:2")
    assert done.returncode != 0
    assert "batch_size 7 does not divide over 2 processes: start fewer (1)" in done.stdout + done.stderr


@pytest.fixture
def tools(tmp_path):
    """The Makefile with a set-up environment whose Python only tells what it was given."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "uv" / "bin").mkdir(parents=True)
    shutil.copy(PROJECT / "Makefile", tmp_path)
    for name in ("requirements.lock", "pyproject.toml", ".venv/uv/bin/uv"):
        (tmp_path / name).touch()
    python = tmp_path / ".venv" / "bin" / "python"
    python.write_text('#!/bin/sh\nprintf "%s\\0" "$ADATOSK_ROOT" "$@" >> told\nprintf "\\n--\\0" >> told\n')
    python.chmod(0o755)
    os.utime(tmp_path / "pyproject.toml", (1, 1))
    (tmp_path / ".venv" / ".ready").touch()
    return tmp_path


def told(folder) -> list[list[str]]:
    """Of each call of the environment's Python: ADATOSK_ROOT, and its arguments."""
    calls = (folder / "told").read_text().split("\n--\0")
    return [call.split("\0")[:-1] for call in calls if call]


@pytest.mark.parametrize("target", ["reproduce", "reproduce-all"])
@pytest.mark.parametrize("by_environment", [False, True])
def test_make_hands_on_what_it_is_given_and_runs_none_of_it(tools, target, by_environment):
    evil = HOSTILE + " $(shell touch y) $$HOME"
    given = {"ROOT": evil, "PROFILE": f"paper{evil}", "DATASET": evil, "CLUSTER": evil, "JOBS": evil, "REUSE": evil}
    arguments = [] if by_environment else [f"{name}={value}" for name, value in given.items()]
    environment = os.environ | (given if by_environment else {})
    subprocess.run(["make", "-s", target, *arguments], cwd=tools, env=environment, check=True)
    first, report = told(tools)
    assert first[0] == evil and first[1:3] == ["-m", "snakemake"]
    assert {f"profile=paper{evil}", f"reuse={evil}"} <= set(first)
    assert first[3:5] == ["--workflow-profile", f"workflow/profiles/{evil}.yaml"]
    assert report[1:] == ["-m", "adatosk", "report", "--profile", f"paper{evil}"]
    assert not (tools / "y").exists() and not list(tools.glob("*touch*"))


@pytest.mark.parametrize("target", ["test-crash", "gpu-paper", "benchmark"])
def test_a_number_is_handed_on_as_it_is(tools, target):
    shutil.copy(tools / ".venv" / "bin" / "python", tools / ".venv" / "bin" / "adatosk")
    evil = "2; touch y $(shell touch z)"
    given = [f"{name}={evil}" for name in ("JOBS", "CLIPS", "RUNS_PER_GPU")] + [f"PYTHON={tools}/.venv/bin/python"]
    subprocess.run(["make", "-s", target, *given], cwd=tools, check=True)
    assert told(tools)
    assert target == "benchmark" or evil in told(tools)[0]
    assert not (tools / "y").exists() and not (tools / "z").exists()


def test_cores_are_counted_for_this_machine_alone(tools):
    for cluster, given in (("local", True), ("slurm", False)):
        subprocess.run(["make", "-s", "reproduce", f"CLUSTER={cluster}", "JOBS=3"], cwd=tools, check=True)
        assert ("--cores" in told(tools)[0]) == given
        (tools / "told").unlink()


def test_make_reproduce_ends_with_the_pair_under_both_kinds_of_motion(tools):
    subprocess.run(["make", "-s", "reproduce", "ROOT=/of/demo"], cwd=tools, check=True)
    demo, lifelike, report = told(tools)
    assert demo[0] == "/of/demo" and demo[-1] == "profile=demo"
    # Its clips are others than those that were named.
    assert lifelike[0] == "" and lifelike[-2:] == ["profile=demo-lifelike", "grid=runs"]
    assert report[1:] == ["-m", "adatosk", "report", "--profile", "demo"]


def test_make_names_the_profile_of_a_data_set(tools):
    subprocess.run(["make", "-s", "reproduce", "PROFILE=paper", "DATASET=mafw; touch y"], cwd=tools, check=True)
    assert told(tools)[0][-1] == "profile=paper-mafw; touch y" and not (tools / "y").exists()
    (tools / "told").unlink()
    given = ["PROFILE=paper", "DATASET=dfew", "RUNS_PER_GPU=2"]
    subprocess.run(["make", "-s", "reproduce-all", *given], cwd=tools, check=True)
    assert {"profile=paper", "grid=all", "runs_per_gpu=2"} <= set(told(tools)[0])


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A checkout of its own, in which one run of profile smoke has been trained, from a folder with a hostile name."""
    tree = tmp_path_factory.mktemp("a checkout")
    for name in ("adatosk", "notebooks", "data_manifests"):
        shutil.copytree(PROJECT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(PROJECT / "Snakefile", tree)
    clips(tree).mkdir()
    done = train_one(tree)
    assert done.returncode == 0, done.stdout + done.stderr
    return tree


def train_one(tree: Path) -> subprocess.CompletedProcess:
    return snakemake(tree, weights(tree), "--config", "profile=smoke", tree=tree, ADATOSK_ROOT=str(clips(tree)))


def clips(tree: Path) -> Path:
    return tree / HOSTILE


def run_folder(tree: Path) -> Path:
    return tree / "outputs" / "smoke" / "runs" / next(iter(headline_configs("smoke")))


def results_of(tree: Path) -> dict[Path, int]:
    """When each file was written, but for locks."""
    files = (path for path in (tree / "outputs").rglob("*") if path.is_file() and path.suffix != ".lock")
    return {path: path.stat().st_mtime_ns for path in files}


def lock_of(tree: Path) -> Path:
    return tree / "outputs" / "smoke" / ".snakemake.lock"


def weights(tree: Path) -> str:
    return str((run_folder(tree) / "checkpoints" / "last" / "model.safetensors").relative_to(tree))


def test_training_from_such_a_root_runs_nothing_of_its_name(checkout):
    assert (run_folder(checkout) / "metrics.json").is_file() and (checkout / weights(checkout)).is_file()
    assert (clips(checkout) / "benchmark.json").is_file()
    assert not list(checkout.rglob("y")) and not list(Path.cwd().glob("y"))


def test_scores_outlive_a_training_that_fails_on_a_damaged_clip(checkout, tmp_path):
    tree = tmp_path / "tree"
    shutil.copytree(checkout, tree)
    scores = (run_folder(tree) / "metrics.json").read_bytes()
    (tree / weights(tree)).unlink()
    shutil.rmtree(tree / "data" / "cache")
    damaged = next(path for path in sorted(clips(tree).rglob("*.mp4")))
    damaged.write_bytes(damaged.read_bytes()[:500])
    done = train_one(tree)
    assert done.returncode != 0 and damaged.name in done.stdout + done.stderr
    assert (run_folder(tree) / "metrics.json").read_bytes() == scores


def test_a_second_one_says_so_in_one_line_and_loses_nothing(checkout):
    holder = "import sys, time, filelock; lock = filelock.FileLock(sys.argv[1]); lock.acquire(); "
    holder += "print(1, flush=True); time.sleep(600)"
    (checkout / weights(checkout)).rename(checkout / "kept")
    files = results_of(checkout)
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(lock_of(checkout))], stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout.readline() == "1\n"
        done = train_one(checkout)
        first.kill()
    said = [line for line in (done.stdout + done.stderr).splitlines() if "is at work in outputs/smoke" in line]
    assert done.returncode != 0 and len(said) == 1
    assert files == results_of(checkout)
    (checkout / "kept").rename(checkout / weights(checkout))


def test_a_kill_locks_nobody_out_and_costs_no_weights(checkout):
    """Snakemake takes the output of a job that was killed for incomplete, also where the run had been finished."""
    path = checkout / weights(checkout)
    before = path.read_bytes()
    path.rename(checkout / "kept")
    command, environment = snakemake_command(
        checkout, weights(checkout), "--config", "profile=smoke", tree=checkout, ADATOSK_ROOT=str(clips(checkout))
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, env=environment, start_new_session=True, **quiet) as job:
        # Snakemake's mark for the file of a job that has begun, and the clips are prepared by another before.
        begun = checkout / ".snakemake" / "incomplete" / urlsafe_b64encode(weights(checkout).encode()).decode()
        while not begun.exists():
            assert job.poll() is None
            time.sleep(0.05)
        with pytest.raises(Timeout):
            FileLock(lock_of(checkout)).acquire(timeout=0)
        os.killpg(job.pid, signal.SIGKILL)
    (checkout / "kept").replace(path)
    done = train_one(checkout)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "already finished" in said and path.read_bytes() == before


def test_a_notebook_that_fails_stays_under_a_name_that_says_so(checkout):
    source, results = checkout / "notebooks" / "01_data_preparation.ipynb", checkout / "outputs" / "smoke"
    notebook = nbformat.read(source, as_version=4)
    after = 1 + next(n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    notebook.cells[after:] = [nbformat.v4.new_code_cell(code) for code in ("6 * 7", "1 / 0", "7 * 8")]
    nbformat.write(notebook, source)
    (results / ".prepared").touch()
    executed = results / "notebooks" / source.name
    done = snakemake(checkout, str(executed.relative_to(checkout)), "--config", "profile=smoke", tree=checkout)
    assert done.returncode != 0 and "ZeroDivisionError" in done.stdout + done.stderr
    assert [path.name for path in executed.parent.iterdir()] == ["01_data_preparation.unfinished.ipynb"]
    (left,) = executed.parent.iterdir()
    *_, first, failed, last = (cell for cell in nbformat.read(left, as_version=4).cells if cell.cell_type == "code")
    assert first.outputs[0].data["text/plain"] == "42" and failed.outputs[0].ename == "ZeroDivisionError"
    assert not last.outputs
