"""The map of the paper: notebook <- runs <- manifest, for the profile given as --config profile=NAME."""

from pathlib import Path

from adatosk.grid import headline_configs

PROFILE = config.get("profile", "demo")
RESULTS = Path("results") / PROFILE
CONFIGS = headline_configs(PROFILE)  # run id -> configuration
# Weights are not part of the repository, so a run counts as made on this machine when they are there.
WEIGHTS = [RESULTS / "runs" / run_id / "checkpoints" / "last" / "model.safetensors" for run_id in CONFIGS]
DATA = Path("data") / Path(next(iter(CONFIGS.values())).data.manifest).stem
ROOT = config.get("root", str(DATA))  # where the clips lie
WORK = Path("data") / "workflow" / PROFILE

NOTEBOOKS = [
    "00_quickstart",
    "01_data_preparation",
    "02_hard_and_soft_masks",
    "03_training",
    "04_evaluation",
    "05_efficiency",
]


rule all:
    input:
        # Named here as well: the notebooks that came with the repository would otherwise do without.
        WEIGHTS,
        [RESULTS / "notebooks" / f"{name}.ipynb" for name in NOTEBOOKS],


rule data:
    output:
        WORK / "ready",
    threads: workflow.cores
    shell:
        "python -m adatosk.workspace {PROFILE} {ROOT} && touch {output}"


rule config:
    output:
        WORK / "configs" / "{run_id}.json",
    run:
        Path(output[0]).write_text(CONFIGS[wildcards.run_id].model_dump_json(indent=2))


rule train:
    input:
        data=WORK / "ready",
        config=WORK / "configs" / "{run_id}.json",
    output:
        RESULTS / "runs" / "{run_id}" / "checkpoints" / "last" / "model.safetensors",
    threads: 1
    shell:
        "python -m adatosk.train {input.config} --root {ROOT} --results {RESULTS} --weights"


rule notebook:
    input:
        source=Path("notebooks") / "{name}.ipynb",
        runs=WEIGHTS,
    output:
        RESULTS / "notebooks" / "{name}.ipynb",
    params:
        root=f"-p root {ROOT}" if "root" in config else "",
    threads: 1
    shell:
        # Written beside its place first: papermill saves as it goes, also what then fails.
        "papermill {input.source} {output}.part.ipynb -k python3 -p profile {PROFILE} {params.root} --no-progress-bar"
        " && mv {output}.part.ipynb {output}"
