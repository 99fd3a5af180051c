"""The map of the paper: table or figure <- notebook <- runs <- manifest, for the profile of --config profile=NAME.

With --config grid=all it is every table and figure, else Table 1's pair with the first six notebooks.
"""

from pathlib import Path

from papermill import inspect_notebook

from adatosk.experiments.grid import HEADLINE_SEEDS, configs, headline_configs, stages, weighed
from adatosk.presets import PROFILES
from adatosk.synthetic import BENCHMARKS
from adatosk.manifests import manifest_path
from adatosk.workspace import saved_by

PROFILE = config.get("profile", "demo")
WHOLE = config.get("grid") == "all"
RESULTS = Path("results") / PROFILE
DATASET = Path(PROFILES[PROFILE].data.manifest).stem
RENDERED = DATASET in BENCHMARKS


def parameters(name: str, root: str | None = config.get("root")) -> str:
    """What papermill gives a notebook: of these, the parameters that it has, for papermill would only warn."""
    given = {"profile": PROFILE, "dataset": None if RENDERED else DATASET, "root": root}
    given |= {"fold": PROFILES[PROFILE].data.fold, "repeats": HEADLINE_SEEDS}
    known = inspect_notebook(f"notebooks/{name}.ipynb")
    return " ".join(f"-p {key} {value}" for key, value in given.items() if key in known and value is not None)


if not manifest_path(PROFILES[PROFILE]).is_file():
    # Runs are named after the manifest, so it has to be there first.
    raise WorkflowError(
        f"data_manifests/{DATASET}.csv: no such manifest; make it from your copy of the set: .venv/bin/papermill "
        f"notebooks/01_data_preparation.ipynb out.ipynb {parameters('01_data_preparation', config.get('root', 'FOLDER'))}"
    )
HEADLINE = headline_configs(PROFILE)  # run id -> configuration
CONFIGS = (configs(PROFILE) if WHOLE else {}) | HEADLINE

NOTEBOOKS = [
    "00_quickstart",
    "01_data_preparation",
    "02_hard_and_soft_masks",
    "03_training",
    "04_evaluation",
    "05_efficiency",
]
# These read the whole grid, over as many seeds as there are.
GRID_NOTEBOOKS = [
    "06_ablation_soft_mask",
    "07_ablation_distance",
    "08_ablation_hard_mask_and_exclusion",
    "09_visualization",
    "10_open_readings",
    "11_paper_vs_ours",
    "12_rivals_and_cost",
]
EXECUTED = NOTEBOOKS + (GRID_NOTEBOOKS if WHOLE else [])


def made_by(name: str) -> list[Path]:
    """The executed notebook, and the tables and figures that it writes."""
    saved = saved_by(Path("notebooks") / f"{name}.ipynb", RENDERED)
    return [RESULTS / "notebooks" / f"{name}.ipynb", *(RESULTS / path for path in saved)]


def scores(run_id: str) -> Path:
    return RESULTS / "runs" / run_id / "metrics.json"


def weights(run_id: str) -> Path:
    return RESULTS / "runs" / run_id / "checkpoints" / "last" / "model.safetensors"


# Weights are not part of the repository, so the pair counts as made on this machine when they are there. Of the other
# runs the tables need the scores alone.
RUNS = [weights(run_id) for run_id in HEADLINE] + [scores(run_id) for run_id in CONFIGS if run_id not in HEADLINE]


# The cost of more views is measured with the weights of the pair and of the ViT on all tokens, seed by seed.
RIVALS_WEIGHTS = [weights(run_id) for run_id in weighed(PROFILE)]


def weights_to_start_from(wildcards) -> list[Path]:
    before = list(stages(CONFIGS[wildcards.run_id]))[:-1]
    return [weights(run_id) for run_id, run in CONFIGS.items() if run in before]


rule all:
    input:
        # Named here as well: the notebooks that came with the repository would otherwise do without.
        RUNS,
        [made_by(name) for name in EXECUTED],


rule train:
    input:
        # Data and configuration are no inputs: what a run depends on is in its id, so a run that came with the
        # repository is not made again for being older than the files made here.
        lambda wildcards: [ancient(path) for path in weights_to_start_from(wildcards)],
    output:
        scores("{run_id}"),
        weights("{run_id}"),
    params:
        root=f"--root {config['root']}" if "root" in config else "",
    threads: 1
    shell:
        "python -m adatosk.experiments.grid {PROFILE} {wildcards.run_id} {params.root}"


# A rule each, because each writes tables and figures of its own, which are made again when they are gone.
for name in EXECUTED:
    rule:
        name:
            f"notebook_{name}"
        input:
            source=Path("notebooks") / f"{name}.ipynb",
            runs=RUNS + (RIVALS_WEIGHTS if name == "12_rivals_and_cost" else []),
        output:
            made_by(name),
        params:
            given=parameters(name),
        threads: 1
        shell:
            # Written beside its place first: papermill saves as it goes, also what then fails.
            "papermill {input.source} {output[0]}.part.ipynb -k python3 {params.given} --no-progress-bar"
            " && mv {output[0]}.part.ipynb {output[0]}"
