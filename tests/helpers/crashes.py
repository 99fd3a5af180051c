"""Kills and refuses file operations, one at a time: ``python tests/helpers/crashes.py FOLDER MOST FATE,… SCENARIO …``.

Of each scenario and fate, MOST operations are tried, spread evenly; 0 tries all of them.

Operations are counted in Python's own layer: ``open`` for writing, ``write``, ``truncate``, ``fsync``, ``rename``,
``replace``, ``link``, ``unlink``, ``mkdir``, ``rmdir``. That is enough where, as here, nothing else writes: Python
announces every opening, renaming and removal to audit hooks, and :meth:`FileLayer.unseen` names what they saw and the
layer did not; and a file made by a library in C would be one that was never opened (:func:`reference`). A preloaded
library would see the same operations, and needs a C compiler and Linux.

Each point runs in a process forked from this one, which has imported everything and started no thread; ``kill`` ends it
with SIGKILL, before the operation or, for a write, after half of it. Then the same command runs to its end in another
one. One line of JSON is printed for each point: what became of the command, and the faults that were found.
"""

import builtins
import errno
import hashlib
import io
import json
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

WRITING = set("wax+")


class FileLayer:
    """Python's file operations under a folder, counted; at one of them the process is killed, or it is refused.

    Args:
        folder: only what lies in it counts.
        point: number of the operation, from 1; 0 only counts.
        fate: ``kill`` or ``refuse`` (``OSError``, no space left on device).
    """

    def __init__(self, folder: Path, point: int = 0, fate: str = "kill") -> None:
        self.folder, self.point, self.fate = str(folder), point, fate
        self.log: list[str] = []
        self.unseen: list[str] = []
        self._inside = 0

    def arm(self) -> None:
        """Put the layer under everything that this process does from now on."""
        self._open, self._os_open, self._os_write = io.open, os.open, os.write
        builtins.open = io.open = self.open_file
        os.open, os.write = self.open_descriptor, self.write_descriptor
        for name in (
            "rename",
            "replace",
            "link",
            "unlink",
            "remove",
            "mkdir",
            "rmdir",
            "fsync",
            "truncate",
            "ftruncate",
        ):
            setattr(os, name, self._counted(name, getattr(os, name)))
        sys.addaudithook(self._audit)

    def holds(self, path: object, dir_fd: int | None = None) -> bool:
        descriptor = path if isinstance(path, int) else dir_fd
        base = Path.cwd() if descriptor is None else Path(f"/proc/self/fd/{descriptor}").readlink()
        whole = base if isinstance(path, int) else base / os.fsdecode(path)
        return whole.is_relative_to(self.folder)

    def happens(self, name: str, path: object, half: Callable[[], object] | None = None) -> None:
        """Count an operation that is about to be done; at the chosen one, this is the last thing that happens."""
        self.log.append(f"{name} {path}")
        if len(self.log) != self.point:
            return
        if self.fate == "kill":
            if half is not None:
                half()
            os.kill(os.getpid(), signal.SIGKILL)
        # As the system has it: a path where it was asked for one, none where it was a file that is open.
        named = () if name in ("write", "fsync", "truncate", "ftruncate") else (str(path),)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), *named)

    def _counted(self, name: str, inner: Callable) -> Callable:
        def operation(path, *args, **options):
            if self.holds(path, options.get("dir_fd") or options.get("src_dir_fd")):
                self.happens(name, path)
            return self._within(inner, path, *args, **options)

        return operation

    def _within(self, inner: Callable, *args, **options):
        self._inside += 1
        try:
            return inner(*args, **options)
        finally:
            self._inside -= 1

    def open_descriptor(self, path, flags, *args, **options):
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        if writes and self.holds(path, options.get("dir_fd")):
            self.happens("open", path)
        return self._within(self._os_open, path, flags, *args, **options)

    def write_descriptor(self, descriptor, data):
        if descriptor > 2 and self.holds(descriptor):
            self.happens("write", descriptor, lambda: self._os_write(descriptor, data[: len(data) // 2]))
        return self._os_write(descriptor, data)

    def open_file(self, file, mode="r", buffering=-1, encoding=None, errors=None, newline=None, *rest, **options):
        if isinstance(file, int) or not WRITING & set(mode) or not self.holds(file):
            return self._within(self._open, file, mode, buffering, encoding, errors, newline, *rest, **options)
        self.happens("open", file)
        raw = self._within(_CountedFile, os.fspath(file), mode.replace("b", "").replace("t", ""))
        raw.layer = self
        size = io.DEFAULT_BUFFER_SIZE
        buffered = io.BufferedRandom(raw, size) if "+" in mode else io.BufferedWriter(raw, size)
        return buffered if "b" in mode else io.TextIOWrapper(buffered, encoding, errors, newline)

    def _audit(self, event: str, args: tuple) -> None:
        if self._inside:
            return
        written = event == "open" and isinstance(args[1], str) and WRITING & set(args[1])
        changed = event in ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate")
        if (written or changed) and isinstance(args[0], str) and self.holds(args[0]):
            self.unseen.append(f"{event} {args[0]}")


class _CountedFile(io.FileIO):
    layer: FileLayer

    def write(self, data):
        data = bytes(data)
        self.layer.happens("write", self.name, lambda: super(_CountedFile, self).write(data[: len(data) // 2]))
        return super().write(data)

    def truncate(self, size=None):
        self.layer.happens("truncate", self.name)
        return super().truncate(size)


def in_process(command: Callable[[Path], None], folder: Path, layer: FileLayer | None = None) -> tuple[int, str]:
    """Run a command in a forked process; its exit status (negative: the signal that ended it) and what it said."""
    said = folder.with_name(folder.name + ".said")
    child = os.fork()
    if child == 0:
        status = 3
        try:
            if layer is not None:
                layer.arm()
            command(folder)
            status = 0
        except OSError as error:
            status = 1
            os.write(os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), str(error).encode())
        except BaseException:
            traceback.print_exc()
        finally:
            if layer is not None and layer.point == 0:
                with said.open("w") as file:
                    json.dump({"log": layer.log, "unseen": layer.unseen}, file)
            os._exit(status)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    text = said.read_text() if said.is_file() else ""
    said.unlink(missing_ok=True)
    return status, text


def tree(folder: Path) -> dict[str, str]:
    """Digest of every file by its path in the folder; a folder's is empty."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


class Trial:
    """A scenario of :mod:`crash_scenarios` in a folder: the command's own result, and what becomes of it at a point."""

    def __init__(self, scenario, folder: Path) -> None:
        self.scenario, self.folder = scenario, folder
        self.start = folder / "start"
        self.start.mkdir(parents=True)
        scenario.prepare(self.start)

    def fresh(self, name: str) -> Path:
        return shutil.copytree(self.start, self.folder / name)

    def reference(self) -> tuple[list[str], dict[str, str]]:
        """The operations of an undisturbed command, and the files that it leaves."""
        place = self.fresh("reference")
        status, said = in_process(self.scenario.command, place, FileLayer(place))
        found = json.loads(said)
        assert status == 0, said
        assert not found["unseen"], found["unseen"]
        opened = {line.split(" ", 1)[1] for line in found["log"] if line.startswith("open ")}
        files = tree(place)
        # Each file was opened under its own name, or as a part, or in a folder, that was renamed.
        assert len(opened) >= sum(bool(digest) for digest in files.values()) - len(list(self.start.rglob("*.*")))
        return found["log"], files

    def point(self, number: int, fate: str, expected: dict[str, str]) -> dict:
        """Kill or refuse operation ``number``, run the command again, and say what is not as it has to be."""
        place = self.fresh(f"{fate}-{number}")
        status, said = in_process(self.scenario.command, place, FileLayer(place, number, fate))
        faults = []
        if fate == "kill" and status != -signal.SIGKILL:
            faults.append(f"was not killed but ended with {status}")
        if fate == "refuse" and status not in (0, 1):
            faults.append(f"a refused operation ended the command with {status}")
        if fate == "refuse" and status == 1 and (str(self.folder) not in said or "\n" in said):
            faults.append(f"the error names no file in one line: {said}")
        faults += self.scenario.faults(self.start, place)
        again, said = in_process(self.scenario.command, place)
        if again != 0:
            faults.append(f"the same command then ends with {again}: {said}")
        found = tree(place)
        faults += [f"differs: {name}" for name in sorted(set(found) & set(expected)) if found[name] != expected[name]]
        faults += [f"stray: {name}" for name in sorted(set(found) - set(expected))]
        faults += [f"lost: {name}" for name in sorted(set(expected) - set(found))]
        shutil.rmtree(place)
        return {"point": number, "fate": fate, "status": status, "faults": faults}


def spread(count: int, most: int) -> list[int]:
    """Numbers from 1 to ``count``: all of them, or ``most``, evenly."""
    if not most or most >= count:
        return list(range(1, count + 1))
    return [1 + round((place + 0.5) / most * (count - 1)) for place in range(most)]


def main() -> None:
    """Print a line of JSON for each point, with the operation's name and the faults found."""
    from crash_scenarios import SCENARIOS

    folder, most, fates, *names = sys.argv[1:]
    for name in names:
        trial = Trial(SCENARIOS[name](), Path(folder) / name)
        log, expected = trial.reference()
        for fate in fates.split(","):
            for number in spread(len(log), int(most)):
                found = trial.point(number, fate, expected)
                print(json.dumps({"scenario": name, "operation": log[number - 1]} | found), flush=True)


if __name__ == "__main__":
    main()
