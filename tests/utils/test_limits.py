"""What is said when the machine runs short of something, and of a process that waits."""

import errno
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from runs import render_pair, short_run

from adatosk.clips import ClipDataset
from adatosk.train import Places, train
from adatosk.utils.endings import line_of, quiet_interrupts
from adatosk.utils.files import locked, replacing, sweep, write_json
from adatosk.utils.limits import LimitError, limits_named
from adatosk.utils.tensors import write_tensors


def quiet(_):
    pass


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "memory does not suffice"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "memory does not suffice"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "memory does not"),
        (OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)), "memory does not suffice"),
        (RuntimeError("could not create a primitive"), "memory does not suffice"),
        (RuntimeError("can't start new thread"), "ulimit -u"),
        (BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)), "ulimit -u"),
        (OSError(errno.EMFILE, os.strerror(errno.EMFILE)), "ulimit -n"),
        (RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "), "a loader process was killed"),
        (ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)), "a loader process was killed"),
        (RuntimeError("DataLoader worker (pid(s) 7, 8) exited unexpectedly"), "a loader process was killed"),
        (
            RuntimeError(
                "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that dataloader's workers "
                "are out of shared memory. Please try to raise your shared memory limit."
            ),
            "/dev/shm",
        ),
        (
            RuntimeError(
                "Caught RuntimeError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
                "RuntimeError: unable to write to file </torch_12_34_0>: No space left on device (28)"
            ),
            "/dev/shm",
        ),
    ],
)
def test_limits_are_named_in_one_line(error, said):
    with pytest.raises(LimitError, match=said) as caught, limits_named():
        raise error
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [ValueError("shared memory"), RuntimeError("mat1 and mat2"), FileNotFoundError(2, "No such file", "/a")]
)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, limits_named():
        raise error
    assert caught.value is error


def test_an_error_of_a_loader_process_is_its_last_line():
    text = "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most…):\n  …\nValueError: a.mp4: x"
    with pytest.raises(ValueError, match=r"^a\.mp4: x$"), limits_named():
        raise ValueError(text)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return render_pair(tmp_path_factory.mktemp("data"))


def test_a_killed_loader_process_is_named(data, tmp_path, monkeypatch):
    main = os.getpid()

    def die(self, key):
        assert os.getpid() != main
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(ClipDataset, "__getitem__", die)
    places = Places(data, tmp_path / "results", data / "cache", workers=1)
    with pytest.raises(LimitError, match=r"a loader process was killed.*fewer processes \(workers\)"):
        train(short_run(data), places, report=quiet)


def test_a_killed_loader_process_is_not_told_twice(capfd):
    """torch's signal handler may raise inside a destructor, which Python reports and passes over."""
    handlers = {kind: signal.getsignal(kind) for kind in (signal.SIGINT, signal.SIGALRM)}
    hook = sys.unraisablehook
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        quiet_interrupts()
        for said in ("DataLoader worker (pid 7) is killed by signal: Terminated. ", "another"):

            class Handle:
                def __del__(self, said=said):
                    raise RuntimeError(said)

            Handle()
    finally:
        sys.unraisablehook = hook
        for kind, handler in handlers.items():
            signal.signal(kind, handler)
    told = capfd.readouterr().err
    assert "another" in told and "DataLoader" not in told


def test_a_limit_on_the_size_of_files_names_the_file_and_leaves_no_part(tmp_path):
    path = tmp_path / "a.safetensors"
    write_json(tmp_path / "b.json", [1])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        for write in (
            lambda: write_tensors(path, {"a": torch.zeros(10_000)}),
            lambda: write_json(tmp_path / "b.json", list(range(10_000))),
        ):
            with pytest.raises(OSError, match=r"File too large: raise the limit .*\(ulimit -f\)") as caught:
                write()
            assert Path(caught.value.filename).parent == tmp_path
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [file.name for file in tmp_path.iterdir()] == ["b.json"]
    assert (tmp_path / "b.json").read_text() == "[\n  1\n]\n"


def test_a_file_where_a_folder_is_needed_is_told_with_what_to_do(tmp_path):
    (tmp_path / "results").touch()
    with pytest.raises(FileExistsError) as caught:
        (tmp_path / "results").mkdir(exist_ok=True)
    said = f"{tmp_path / 'results'}: File exists: a file stands where a folder is needed; name another place"
    assert line_of(caught.value) == said


def test_a_full_disk_names_the_file(tmp_path):
    with pytest.raises(OSError, match="No space left on device: make room") as caught, replacing(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "a")
    with pytest.raises(OSError, match="No space left") as caught:
        Path("/dev/full").write_bytes(b"x")  # the system's own error, which names none
    assert caught.value.filename is None


def test_parts_are_swept_and_nothing_else(tmp_path):
    for name in (".a.json.123.part", "a.part", ".hidden", ".a.part", "1.part"):
        (tmp_path / name).touch()
    sweep(tmp_path, tmp_path / "missing")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a.part", ".hidden", "1.part", "a.part"]


def test_who_waits_for_a_lock_says_so(tmp_path):
    path, lines = tmp_path / ".run.lock", []

    def wait():
        with locked(path, lines.append):
            lines.append("mine")

    with FileLock(path):
        waiting = threading.Thread(target=wait)
        start = time.monotonic()
        waiting.start()
        while not lines and time.monotonic() - start < 20:
            time.sleep(0.05)
        assert time.monotonic() - start > 0.9
        assert lines == [f"waiting for another process, which holds the lock {path}"]
    waiting.join(20)
    assert lines[1:] == ["mine"]


def is_deaf(process: int) -> bool:
    """Whether a process blocks or ignores Ctrl-C."""
    status = Path(f"/proc/{process}/status").read_text()
    masks = [int(mask, 16) for mask in re.findall(r"^Sig(?:Blk|Ign):\s*(\w+)$", status, re.MULTILINE)]
    return any(mask >> (signal.SIGINT - 1) & 1 for mask in masks)


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux")
def test_workers_of_a_renderer_leave_ctrl_c_to_it_and_end_with_it(tmp_path):
    script = (
        "import sys\nfrom adatosk.synthetic import BenchmarkConfig, write_benchmark\n"
        "if __name__ == '__main__':\n"
        "    write_benchmark(BenchmarkConfig(name='w', train_clips=4000, test_clips=0), sys.argv[1], workers=2)\n"
    )
    (tmp_path / "render.py").write_text(script)
    command = [sys.executable, str(tmp_path / "render.py"), str(tmp_path / "out")]
    # What a shell starts in the background ignores Ctrl-C, and so would the renderer if the tests were started so.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    renderer = subprocess.Popen(command, stderr=subprocess.DEVNULL, preexec_fn=heed)
    children = Path(f"/proc/{renderer.pid}/task/{renderer.pid}/children")
    try:
        deadline = time.monotonic() + 240
        while not list(tmp_path.glob("out/videos/*.mp4")) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert list(tmp_path.glob("out/videos/*.mp4"))
        workers = [int(child) for child in children.read_text().split()]
        assert len(workers) >= 2
        assert all(map(is_deaf, workers)) and not is_deaf(renderer.pid)
    finally:
        renderer.kill()
        renderer.wait()
    deadline = time.monotonic() + 20
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    left = [worker for worker in workers if Path(f"/proc/{worker}/cmdline").exists()]
    states = [Path(f"/proc/{worker}/stat").read_text().split()[2] for worker in left]
    assert set(states) <= {"Z"}, states  # nobody may be there to take note of their end
