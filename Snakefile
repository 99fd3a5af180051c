"""The map of the paper: table or figure <- notebook <- runs <- manifest, for the profile of --config profile=NAME.

With --config grid=all it is every table and figure, else Table 1's pair with the notebooks that need no more. Where
the clips lie is the environment's ADATOSK_ROOT, or --config root=FOLDER; data/<set> by default. Notebooks declare what
they read and write in their metadata (adatosk.experiments.notebooks). Nothing else decides what is trained.
"""

import os
import shlex
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from adatosk.experiments.grid import (
    HEADLINE_SEEDS, REPRODUCE, configs, headline_configs, run_file, stages, weighed, write_runs
)
from adatosk.experiments.notebooks import notebook_cards, parameter_names
from adatosk.manifests import manifest_path
from adatosk.presets import PROFILES
from adatosk.synthetic import BENCHMARKS
from adatosk.utils.project import OUTPUTS, PROJECT, PUBLISHED
from adatosk.workspace import adopt_published, data_root, prepare_data

PROFILE = str(config.get("profile", "demo"))
if PROFILE not in PROFILES:
    raise WorkflowError(f"unknown profile '{PROFILE}': choose {', '.join(PROFILES)}")
WHOLE = config.get("grid") == "all"
# reuse=no trains every run here, also those whose scores are published.
REUSE = str(config.get("reuse", "yes")) not in ("no", "False")
# From the environment it comes as it is; Snakemake reads --config as YAML.
GIVEN_ROOT = os.environ.get("ADATOSK_ROOT") or (str(config["root"]) if "root" in config else None)
ROOT = data_root(PROFILES[PROFILE], GIVEN_ROOT)
RESULTS = OUTPUTS.relative_to(PROJECT) / PROFILE
DATASET = Path(PROFILES[PROFILE].data.manifest).stem
RENDERED = DATASET in BENCHMARKS


def parameters(name: str, root: str | None = GIVEN_ROOT) -> list[str]:
    """What papermill gives a notebook: of these, the parameters that it has, for papermill would only warn."""
    texts = {"profile": PROFILE, "dataset": None if RENDERED else DATASET, "root": root}
    values = {"fold": PROFILES[PROFILE].data.fold, "repeats": HEADLINE_SEEDS}
    known = parameter_names(Path("notebooks") / f"{name}.ipynb")
    given = [("-r" if key in texts else "-p", key, value) for key, value in (texts | values).items() if key in known]
    return [part for option, key, value in given if value is not None for part in (option, key, str(value))]


if not manifest_path(PROFILES[PROFILE]).is_file():
    # Runs are named after the manifest, so it has to be there first.
    command = shlex.join(
        [".venv/bin/papermill", "notebooks/01_data_preparation.ipynb", "out.ipynb"]
        + parameters("01_data_preparation", GIVEN_ROOT or "FOLDER")
    )
    raise WorkflowError(f"data_manifests/{DATASET}.csv: no such manifest; make it from your copy of the set: {command}")

CARDS = {
    name: card for name, card in notebook_cards(Path("notebooks")).items() if WHOLE or card.target == REPRODUCE
}
HEADLINE = headline_configs(PROFILE)  # run id -> configuration
# The cost of more views is measured with the weights of the pair and of the ViT on all tokens, seed by seed.
WEIGHTS = {"headline": HEADLINE, "weighed": weighed(PROFILE), None: {}}
SCORES = configs(PROFILE, tuple(dict.fromkeys(table for card in CARDS.values() for table in card.tables)))
CONFIGS = SCORES | {run_id: run for card in CARDS.values() for run_id, run in WEIGHTS[card.weights].items()}

if workflow.is_main_process:
    adopt_published(PROFILE, PUBLISHED.relative_to(PROJECT), RESULTS.parent)
    write_runs(PROFILE, RESULTS, CONFIGS)


def scores(run_id: str) -> Path:
    return RESULTS / "runs" / run_id / "metrics.json"


def weights(run_id: str) -> Path:
    return RESULTS / "runs" / run_id / "checkpoints" / "last" / "model.safetensors"


def made(run_id: str) -> Path:
    """The file to ask a run for; training ends with both scores and weights.

    Weights are not part of the repository, so a run whose weights some notebook reads counts as made when they are
    there; of the others the tables need the scores alone.
    """
    if not scores(run_id).is_file():
        return scores(run_id) if weights(run_id).is_file() else weights(run_id)
    needed = not REUSE or any(run_id in WEIGHTS[card.weights] for card in CARDS.values())
    return weights(run_id) if needed else scores(run_id)


# The files of the runs that each notebook reads.
READ_BY = {
    name: [made(run_id) for run_id in configs(PROFILE, card.tables) | WEIGHTS[card.weights]]
    for name, card in CARDS.items()
}


def written_by(name: str) -> list[Path]:
    """The executed notebook, and the tables and figures that it writes."""
    return [RESULTS / file for file in (f"notebooks/{name}.ipynb", *CARDS[name].files(None if RENDERED else DATASET))]


def weights_to_start_from(wildcards) -> list[Path]:
    before = list(stages(CONFIGS[wildcards.run_id]))[:-1]
    return [weights(run_id) for run_id, run in CONFIGS.items() if run in before]


def training(wildcards) -> list[str]:
    """The command, word by word: what a user who trains this run by hand types."""
    given = [f"--root={ROOT}", f"--results={RESULTS}", "--weights"]
    return [sys.executable, "-m", "adatosk.train", str(run_file(RESULTS, wildcards.run_id)), *given]


def execution(name: str):
    """The command that executes a notebook, as a function of a job: what functions give Snakemake does not format."""
    return lambda wildcards, input, output: [
        *(sys.executable, "-m", "papermill", str(input.source), f"{output[0]}.part.ipynb"),
        *("-k", "python3", "--no-progress-bar", *parameters(name)),
    ]


# Held until the process ends, however it does: Snakemake's own lock outlives one that is killed.
LOCK = FileLock(RESULTS / ".snakemake.lock")


def begin() -> None:
    """Before the first job: no other Snakemake is at work here, and the data is in place."""
    try:
        LOCK.acquire(timeout=0)
    except Timeout:
        raise WorkflowError(f"another make or snakemake is at work in {RESULTS}: start this one when it is done")
    try:
        prepare_data(PROFILES[PROFILE], ROOT)
    except (ValueError, OSError) as error:
        raise WorkflowError(str(error))


wildcard_constraints:
    run_id="[0-9a-f]{12}",


onstart:
    if workflow.is_main_process:
        begin()


rule all:
    input:
        # Named here as well: the notebooks that came with the repository would otherwise do without.
        list(READ_BY.values()),
        [written_by(name) for name in CARDS],


rule train:
    input:
        # Data and configuration are no inputs: what a run depends on is in its id, so a run that came with the
        # repository is not made again for being older than the files made here.
        lambda wildcards: [ancient(path) for path in weights_to_start_from(wildcards)],
    output:
        # Scores are none, for Snakemake removes the outputs of a job that fails, and those that came with the
        # repository cost hours. A run that was finished when its job was killed keeps its weights.
        update(weights("{run_id}")),
    params:
        command=training,
    threads: 1
    shell:
        "{params.command:q}"


# The same for a run that was cut off between its weights and its scores.
use rule train as finish with:
    output:
        update(scores("{run_id}")),


# A rule each, because each writes tables and figures of its own, which are made again when they are gone.
for name in CARDS:
    rule:
        name:
            f"notebook_{name}"
        input:
            source=Path("notebooks") / f"{name}.ipynb",
            runs=READ_BY[name],
        output:
            # These, too, stay until the new ones are there.
            [update(path) for path in written_by(name)],
        params:
            command=execution(name),
        threads: 1
        shell:
            # Written beside its place first: papermill saves as it goes, also what then fails.
            "{params.command:q} && mv {output[0]:q}.part.ipynb {output[0]:q}"
