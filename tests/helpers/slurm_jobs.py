"""A checkout whose workflow runs on the SLURM of tests/cluster, and what is asked of that SLURM."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from adatosk.utils.project import PROJECT

# Where tests/cluster/slurm.sh keeps logs and state, while it runs.
STATE = Path(os.environ.get("ADATOSK_TESTS_SLURM", "no SLURM"))
# Rendered once for all trees.
CLIPS = STATE / 'my "clips"; it\'s $HOME'
PREPARED = "outputs/smoke/.prepared"
# The smoke profile with a batch for two processes, and long enough to be interrupted.
EPOCHS = 12
BEFORE, AFTER = "epochs=4, warmup_epochs=1, batch_size=7", f"epochs={EPOCHS}, warmup_epochs=1, batch_size=8"
# What this machine has; the rest of a profile is left as it is.
SMALL = {"latency-wait": 5, "slurm-init-seconds-before-status-checks": 1}
ROOMY = 2000  # MB
# Looks every second whether a job has ended. The plugin looks less and less often, and no setting changes that.
SNAKEMAKE = """
import asyncio
from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor
RemoteExecutor.sleep = lambda self: asyncio.sleep(1)
main()
"""
# Writes the files of Table 1's runs, and names them.
RUNS = """
from pathlib import Path
from adatosk.experiments.runs import configs, write_runs
runs = configs("smoke", ("table1",))
write_runs("smoke", Path("outputs/smoke"), runs)
print(*runs)
"""
PATIENCE = 600  # seconds for what takes one or, from job to job, a minute on an idle machine


class Tree:
    """A checkout of its own, and what its jobs do."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, folder / "outputs" / "smoke"
        self.commands: list[subprocess.Popen] = []
        for name in ("adatosk", "notebooks", "data_manifests", "workflow"):
            shutil.copytree(PROJECT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(PROJECT / "Snakefile", folder)
        CLIPS.mkdir(parents=True, exist_ok=True)
        presets = folder / "adatosk" / "presets.py"
        text = presets.read_text()
        assert text.count(BEFORE) == 1
        presets.write_text(text.replace(BEFORE, AFTER))
        self.environment = os.environ | {"PYTHONPATH": str(folder), "ADATOSK_ROOT": str(CLIPS)}
        listed = [sys.executable, "-c", RUNS]
        self.runs = subprocess.check_output(listed, cwd=folder, env=self.environment, text=True).split()

    def run(self, run_id: str) -> Path:
        return self.results / "runs" / run_id

    def weights(self, run_id: str) -> str:
        return str((self.run(run_id) / "checkpoints" / "last" / "model.safetensors").relative_to(self.folder))

    def start(self, *targets: str, profile: str = "slurm", partition: str = "all", **training) -> subprocess.Popen:
        """Snakemake with a profile of the project, cut to this machine, ``training`` replacing resources of a run."""
        settings = yaml.safe_load((self.folder / "workflow" / "profiles" / f"{profile}.yaml").read_text()) | SMALL
        settings["set-threads"] = dict.fromkeys(settings["set-threads"], 1)
        settings["default-resources"] |= {"mem_mb": ROOMY, "slurm_partition": repr(partition)}
        for rule, resources in settings["set-resources"].items():
            resources |= {"mem_mb": ROOMY, "gres": "gpu:1"} | (training if rule in ("train", "finish") else {})
            if rule == "prepare":
                del resources["gres"]
        path = self.folder / "profile.yaml"
        path.write_text(yaml.safe_dump(settings))
        command = [sys.executable, "-c", SNAKEMAKE, *targets, "--workflow-profile", path.name, "--nolock"]
        # Prepared stays prepared.
        command += ["--notemp", "--rerun-incomplete", "--rerun-triggers", "mtime", "--config", "profile=smoke"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.commands.append(subprocess.Popen(command, cwd=self.folder, env=self.environment, **pipes))
        return self.commands[-1]

    def end(self) -> None:
        """What a test that failed left behind; Snakemake cancels its jobs."""
        for command in self.commands:
            if command.poll() is None:
                command.send_signal(signal.SIGINT)
                command.communicate(timeout=60)

    def make(self, *targets: str, **options) -> str:
        return finished(self.start(*targets, **options))

    def logs(self, run_id: str) -> str:
        """What the jobs of a run printed, in their order."""
        paths = (self.folder / "logs").glob(f"rule_train/{run_id}/*.log")
        return "".join(path.read_text() for path in sorted(paths, key=lambda path: int(path.stem)))

    def job(self, run_id: str) -> str | None:
        """The number of the job that trains a run, if it is running."""
        lines = said("squeue", "--noheader", "--format=%i %k %Z", "--states=running").splitlines()
        return next((line.split()[0] for line in lines if run_id in line and str(self.folder) in line), None)

    def half_way(self, run_id: str) -> bool:
        log = self.run(run_id) / "log.jsonl"
        return log.is_file() and 2 <= len(log.read_text().splitlines()) < EPOCHS - 2


def said(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def state(job: str) -> str:
    return re.search(r"JobState=(\w+)", said("scontrol", "show", "job", job))[1]


def finished(process: subprocess.Popen) -> str:
    output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == 0, output
    return output


def wait_for(condition: Callable, process: subprocess.Popen | None = None):
    """What ``condition`` returns once it holds, as long as the process that is to bring it about is there."""
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end
        assert process is None or process.poll() is None, process.communicate()[0]
        time.sleep(0.2)
    return found
