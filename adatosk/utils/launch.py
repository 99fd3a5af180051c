"""Starts a command of the workflow on the GPUs that it asks for: ``python -m adatosk.utils.launch --gres gpu:2 -- …``.

``--`` precedes what follows ``python``, such as ``-m adatosk.train run.json``. It becomes one process, or torchrun's:
one process per GPU of this node, or of each of several nodes of a SLURM job. Where several commands share a machine,
each waits for GPUs with a free place, so that they spread over all of them.
"""

import argparse
import os
import random
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote_plus

_TORCHRUN = ("-m", "torch.distributed.run")
# Ports below are the system's; the job's number keeps two jobs on one node apart.
_FIRST_PORT, _PORTS = 20000, 10000
_PATIENCE = 1.0  # seconds between two looks for a free GPU
# What SLURM and users write into CUDA_VISIBLE_DEVICES for no GPU.
_NO_GPU = ("", "-1", "NoDevFiles")


def gpu_count(gres: str) -> int:
    """GPUs of each node, which SLURM writes ``gpu``, ``gpu:8`` or ``gpu:a100:8``; ``""`` for none.

    Raises:
        ValueError: it says anything else.
    """
    found = re.fullmatch(r"gpu(?::[A-Za-z_][\w.]*)?(?::(\d+))?", gres)
    if gres and found is None:
        raise ValueError(f"gres='{gres}': write gpu:8, gpu:a100:8, or nothing for no GPU")
    return 0 if found is None else int(found[1] or 1)


def started(command: Sequence[str], gres: str = "", nodes: int = 1, cpus: int = 1) -> list[str]:
    """The words that start ``python COMMAND`` with one process per GPU, or one process where there is no GPU.

    Args:
        command: what follows ``python``.
        gres: GPUs of each node, as :func:`gpu_count` reads them.
        nodes: number of nodes, all of this SLURM job.
        cpus: CPU cores of each node.

    Raises:
        ValueError: several nodes outside a SLURM job.
    """
    gpus = gpu_count(gres)
    if nodes == 1 and gpus <= 1:
        return [sys.executable, *command]
    torchrun = [sys.executable, *_TORCHRUN, f"--nproc-per-node={max(gpus, 1)}"]
    if nodes == 1:
        return [*torchrun, "--standalone", *command]
    job = os.environ.get("SLURM_JOB_ID")
    if job is None:
        raise ValueError(
            f"{nodes} nodes, and this is no SLURM job: submit it with CLUSTER=slurm-nodes, or use one node"
        )
    srun = ["srun", f"--nodes={nodes}", "--ntasks-per-node=1", f"--cpus-per-task={cpus}", "--kill-on-bad-exit=1"]
    srun += [f"--gres={gres}"] if gpus else []
    meet = [f"--nnodes={nodes}", "--rdzv-backend=c10d", f"--rdzv-id={job}"]
    endpoint = f"{socket.gethostname()}:{_FIRST_PORT + int(job) % _PORTS}"
    return [*srun, *torchrun, *meet, f"--rdzv-endpoint={endpoint}", *command]


def check_launched(command: Sequence[str], environment: Mapping[str, str] = os.environ) -> None:
    """Refuse to run if srun started several processes that know nothing of each other.

    Raises:
        ValueError: with the line that starts ``python COMMAND`` as it was meant.
    """
    tasks, nodes = (int(environment.get(f"SLURM_STEP_NUM_{what}", "1")) for what in ("TASKS", "NODES"))
    if tasks == 1 or "WORLD_SIZE" in environment:
        return
    torchrun, what = f"torchrun --nproc-per-node={max(tasks // nodes, 1)}", shlex.join(command)
    if nodes == 1:
        meant = f"srun --ntasks=1 {torchrun} --standalone {what}"
    else:
        first = f"$(scontrol show hostnames | head -n 1):{_FIRST_PORT}"
        meet = f"--nnodes={nodes} --rdzv-backend=c10d --rdzv-id=$SLURM_JOB_ID --rdzv-endpoint={first}"
        meant = f"srun --nodes={nodes} --ntasks-per-node=1 {torchrun} {meet} {what}"
    raise ValueError(f"srun started {tasks} processes that would each train the whole run; start it by: {meant}")


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [gpu for gpu in map(str.strip, listed.split(",")) if gpu not in _NO_GPU]
    if shutil.which("nvidia-smi") is None:
        return []
    found = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True, check=False).stdout
    return [str(number) for number in range(sum(line.startswith("GPU ") for line in found.splitlines()))]


def occupy(gpus: Sequence[str], count: int, share: int) -> list[str]:
    """Wait until ``count`` of ``gpus`` have fewer than ``share`` commands of this user, and take a place on each.

    A place is a locked file, which this process and what it becomes hold until they end, however they do.

    Raises:
        ValueError: there are not as many GPUs.
    """
    if count > len(gpus):
        raise ValueError(f"asked for {count} GPUs, and this process may use {len(gpus)}: ask for fewer (gres)")
    # A SLURM job numbers its own GPUs from 0, so the same name in another job is another GPU.
    scope = f"{os.getuid()}-{os.environ.get('SLURM_JOB_ID', 'here')}"
    folder = Path(tempfile.gettempdir()) / f"adatosk-gpus-{scope}"
    folder.mkdir(mode=0o700, exist_ok=True)
    while True:
        held: dict[str, int] = {}
        for place in range(share):  # the first place of every GPU before the second of any
            for gpu in gpus:
                if gpu in held or len(held) == count:
                    continue
                if (lock := _locked(folder / f"{quote_plus(gpu)}.{place}")) is not None:
                    held[gpu] = lock
        if len(held) == count:
            return list(held)
        for lock in held.values():
            os.close(lock)
        time.sleep(_PATIENCE * random.uniform(0.5, 1))


def _locked(path: Path) -> int | None:
    """A lock that lasts beyond ``exec``, as those of filelock do not; ``None`` if another process holds it."""
    import fcntl  # not on Windows, which imports this module for check_launched alone

    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    os.set_inheritable(file, True)
    return file


def main() -> None:
    """Become the command."""
    parser = argparse.ArgumentParser(prog="python -m adatosk.utils.launch", description=__doc__)
    parser.add_argument("--gres", default="", help="GPUs of each node, with one process each, such as gpu:8")
    parser.add_argument("--nodes", type=int, default=1, help="nodes of this SLURM job")
    parser.add_argument("--cpus", type=int, default=1, help="CPU cores of each node")
    parser.add_argument("--share", type=int, default=1, help="commands that may use a GPU at once")
    parser.add_argument("command", nargs="+", help="what follows python")
    given = parser.parse_args()
    try:
        words, gpus = started(given.command, given.gres, given.nodes, given.cpus), gpu_count(given.gres)
        if gpus and given.nodes == 1:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(occupy(visible_gpus(), gpus, given.share))
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
    os.execvp(words[0], words)


if __name__ == "__main__":
    main()
