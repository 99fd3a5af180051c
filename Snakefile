"""The map of the paper: table or figure <- notebook <- runs <- manifest, for the profile of --config profile=NAME.

With --config grid=all it is every table and figure, with grid=runs the first seed of Table 1's pair alone, else also
the notebooks that need no more than that pair. Where the clips lie is the environment's ADATOSK_ROOT, or
--config root=FOLDER; data/<set> by default. Notebooks declare what they read and write in their metadata
(adatosk.experiments.notebooks). Nothing else decides what is trained.

What a job gets is its rule's threads and resources, which workflow/profiles/*.yaml set: gres, GPUs of each node in
SLURM's notation; nodes; workers, loader processes of each of a run's processes.
"""

import os
import shlex
import sys
from pathlib import Path

from filelock import FileLock, Timeout

from adatosk.experiments.grid import HEADLINE_SEEDS, stages
from adatosk.experiments.notebooks import notebook_cards, parameter_names
from adatosk.experiments.runs import REPRODUCE, configs, headline_configs, run_file, weighed, write_runs
from adatosk.utils.launch import gpu_count, visible_gpus
from adatosk.manifests import manifest_path
from adatosk.presets import PROFILES
from adatosk.synthetic import BENCHMARKS
from adatosk.utils.project import OUTPUTS, PROJECT, PUBLISHED
from adatosk.workspace import adopt_published, check_data, data_root

PROFILE = str(config.get("profile", "demo"))
if PROFILE not in PROFILES:
    raise WorkflowError(f"unknown profile '{PROFILE}': choose {', '.join(PROFILES)}")
WHOLE, RUNS_ONLY = config.get("grid") == "all", config.get("grid") == "runs"
# reuse=no trains every run here, also those whose scores are published. A version of YAML takes the words for booleans.
if str(config.get("reuse", "yes")) not in ("yes", "no", "True", "False"):
    raise WorkflowError(f"reuse={config['reuse']}: say yes or no")
REUSE = str(config.get("reuse", "yes")) in ("yes", "True")
# From the environment it comes as it is; Snakemake reads --config as YAML.
GIVEN_ROOT = os.environ.get("ADATOSK_ROOT") or (str(config["root"]) if "root" in config else None)
ROOT = data_root(PROFILES[PROFILE], GIVEN_ROOT)
RESULTS = OUTPUTS.relative_to(PROJECT) / PROFILE
DATASET = Path(PROFILES[PROFILE].data.manifest).stem
RENDERED = DATASET in BENCHMARKS
# Without a scheduler, jobs share this machine's GPUs: many of the small models at once on one, one of the paper's.
GPUS = len(visible_gpus())
RUNS_PER_GPU = config.get("runs_per_gpu", 8 if RENDERED else 1)
if not (isinstance(RUNS_PER_GPU, int) and RUNS_PER_GPU > 0):
    raise WorkflowError(f"runs_per_gpu={RUNS_PER_GPU}: give a number of runs, such as 4")
ONE_GPU = "gpu:1" if GPUS else ""
# Each of these jobs has its part of the cores, so that no more of them start than find a place.
CORES = max((workflow.resource_settings.cores or 1) // (GPUS * RUNS_PER_GPU), 1) if GPUS else 1


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
    name: card
    for name, card in notebook_cards(Path("notebooks")).items()
    if not RUNS_ONLY and (WHOLE or card.target == REPRODUCE)
}
HEADLINE = headline_configs(PROFILE)  # run id -> configuration
# The cost of more views is measured with the weights of the pair and of the ViT on all tokens, seed by seed.
WEIGHTS = {"headline": HEADLINE, "weighed": weighed(PROFILE), None: {}}
SCORES = configs(PROFILE, tuple(dict.fromkeys(table for card in CARDS.values() for table in card.tables)))
CONFIGS = SCORES | {run_id: run for card in CARDS.values() for run_id, run in WEIGHTS[card.weights].items()}
CONFIGS |= HEADLINE if RUNS_ONLY else {}

if workflow.is_main_process:
    adopt_published(PROFILE, PUBLISHED.relative_to(PROJECT), RESULTS.parent)
    write_runs(PROFILE, RESULTS, CONFIGS)


def scores(run_id: str) -> Path:
    return RESULTS / "runs" / run_id / "metrics.json"


def weights(run_id: str) -> Path:
    return RESULTS / "runs" / run_id / "checkpoints" / "last" / "model.safetensors"


def made(run_id: str) -> Path:
    """The file to ask a run for; training ends with both scores and weights.

    Published runs come without weights (the pair's, which ship, are for use: no run starts from them or passes for them),
    so a run whose weights some notebook reads counts as made when they are there; of the others the tables need the
    scores alone.
    """
    if not scores(run_id).is_file():
        return scores(run_id) if weights(run_id).is_file() else weights(run_id)
    needed = RUNS_ONLY or not REUSE or any(run_id in WEIGHTS[card.weights] for card in CARDS.values())
    return weights(run_id) if needed else scores(run_id)


# The files of the runs that each notebook reads.
READ_BY = {
    name: [made(run_id) for run_id in configs(PROFILE, card.tables) | WEIGHTS[card.weights]]
    for name, card in CARDS.items()
}


def written_by(name: str) -> list[Path]:
    """The executed notebook, and the tables and figures that it writes."""
    return [RESULTS / file for file in (f"notebooks/{name}.ipynb", *CARDS[name].files(None if RENDERED else DATASET))]


PREPARED = RESULTS / ".prepared"


# Only what is made in any case waits for the clips, lest preparing them makes it again: a file that is missing of a run
# that is asked for or that such a run starts from, and a notebook of which a file is missing.
ASKED = {stage for run_id, run in CONFIGS.items() if not made(run_id).is_file() for stage in stages(run)}


def clips_for(*files: Path) -> list[Path]:
    return [PREPARED] if not all(file.is_file() for file in files) else []


def weights_to_start_from(wildcards) -> list[Path]:
    before = list(stages(CONFIGS[wildcards.run_id]))[:-1]
    return [weights(run_id) for run_id, run in CONFIGS.items() if run in before]


def launched(command: list[str], resources, threads: int) -> list[str]:
    """``python COMMAND`` on the GPUs and nodes of a job."""
    if not resources.get("gres") and resources.get("nodes", 1) == 1:
        return [sys.executable, *command]
    given = [f"--gres={resources.get('gres', '')}", f"--nodes={resources.get('nodes', 1)}"]
    given += [f"--cpus={threads}", f"--share={RUNS_PER_GPU}"]
    return [sys.executable, "-m", "adatosk.utils.launch", *given, "--", *command]


def training(wildcards, resources, threads) -> list[str]:
    """The command, word by word: what a user who trains this run by hand types."""
    run = CONFIGS[wildcards.run_id]
    try:
        on_a_node = max(gpu_count(resources.get("gres", "")), 1)
        run.train.share(on_a_node * resources.get("nodes", 1))
    except ValueError as error:
        raise WorkflowError(f"run {wildcards.run_id}: {error}")
    given = [f"--root={ROOT}", f"--results={RESULTS}", "--weights"]
    if not RENDERED or "workers" in resources.keys():  # clips of the benchmark are ready sooner without
        given.append(f"--workers={resources.get('workers', threads // on_a_node)}")
    return launched(["-m", "adatosk.train", str(run_file(RESULTS, wildcards.run_id)), *given], resources, threads)


def preparation(wildcards, threads) -> list[str]:
    """The command that readies the clips of all runs, which differ in fold and seed alone."""
    run = str(run_file(RESULTS, next(iter(CONFIGS))))
    # Alone on this machine, it takes all cores; a scheduler's job those that it asked for.
    workers = [f"--workers={threads}"] if threads > 1 else []
    return [sys.executable, "-m", "adatosk", "prepare", run, f"--root={ROOT}", *workers]


def unfinished(executed: str) -> str:
    """Where papermill writes a notebook as it goes; what fails stays there."""
    return str(Path(executed).with_suffix(".unfinished.ipynb"))


def execution(name: str):
    """The command that executes a notebook, as a function of a job: what functions give Snakemake does not format."""
    return lambda wildcards, input, output, resources, threads: launched(
        [
            *("-m", "papermill", str(input.source), unfinished(output[0])),
            *("-k", "python3", "--no-progress-bar", *parameters(name)),
        ],
        resources,
        threads,
    )


# Held until the process ends, however it does: Snakemake's own lock outlives one that is killed.
LOCK = FileLock(RESULTS / ".snakemake.lock")


def begin() -> None:
    """Before the first job: no other Snakemake is at work here, and the data is in place or can be rendered."""
    try:
        LOCK.acquire(timeout=0)
    except Timeout:
        raise WorkflowError(f"another make or snakemake is at work in {RESULTS}: start this one when it is done")
    try:
        check_data(PROFILES[PROFILE], ROOT)
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
        [made(run_id) for run_id in CONFIGS] if RUNS_ONLY else [],


rule prepare:
    output:
        # Gone when nothing needs it any more: the next call looks again, which takes seconds.
        temp(touch(PREPARED)),
    params:
        command=preparation,
    threads: 1
    shell:
        "{params.command:q}"


rule train:
    input:
        lambda wildcards: clips_for(weights(wildcards.run_id)) if CONFIGS[wildcards.run_id] in ASKED else [],
        # Data and configuration are no inputs: what a run depends on is in its id, so a run that came with the
        # repository is not made again for being older than the files made here.
        lambda wildcards: [ancient(path) for path in weights_to_start_from(wildcards)],
    output:
        # Scores are none, for Snakemake removes the outputs of a job that fails, and those that came with the
        # repository cost hours. A run that was finished when its job was killed keeps its weights.
        update(weights("{run_id}")),
    params:
        command=training,
    threads: CORES
    resources:
        gres=ONE_GPU,
    shell:
        "{params.command:q}"


# The same for a run that was cut off between its weights and its scores.
use rule train as finish with:
    input:
        lambda wildcards: clips_for(scores(wildcards.run_id)),
    output:
        update(scores("{run_id}")),


# A rule each, because each writes tables and figures of its own, which are made again when they are gone.
for name in CARDS:
    rule:
        name:
            f"notebook_{name}"
        input:
            clips_for(*written_by(name)),
            source=Path("notebooks") / f"{name}.ipynb",
            runs=READ_BY[name],
        output:
            # These, too, stay until the new ones are there.
            [update(path) for path in written_by(name)],
        params:
            command=execution(name),
            finish=lambda wildcards, output: [
                sys.executable, "-m", "adatosk.experiments.executed", unfinished(output[0]), output[0]
            ],
        # Those that load weights of the paper's models, or train some.
        threads: CORES if CARDS[name].computes and not RENDERED else 1
        resources:
            gres=ONE_GPU if CARDS[name].computes and not RENDERED else "",
        shell:
            "{params.command:q} && {params.finish:q}"
