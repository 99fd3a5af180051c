"""Runs commands in forked processes that press Ctrl-C at one point, and prints how each ended, a line of JSON each.

``python interruptions.py FOLDER`` reads a JSON list of cases from its input, each ``{"module", "arguments", "point"}``:
of a point ``import NAME``, Ctrl-C comes when the module NAME is looked for; of a point ``MODULE:FUNCTION``, when the
function is called; without a point, never. Modules in ``"first"`` are imported by the common parent, which is faster.
"""

import importlib
import json
import os
import runpy
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path


def press() -> None:
    """Ctrl-C, as a terminal sends it: to all processes of the group."""
    os.killpg(0, signal.SIGINT)


class PressWhenImported:
    """A finder that finds nothing."""

    def __init__(self, name: str):
        self.name = name

    def find_spec(self, name, path=None, target=None):
        if name == self.name:
            press()


def press_when_called(where: str) -> None:
    module, _, name = where.partition(":")
    holder = importlib.import_module(module)
    *parents, name = name.split(".")
    for parent in parents:
        holder = getattr(holder, parent)
    inner, calls = getattr(holder, name), count()

    def pressing(*arguments, **options):
        if next(calls) == 0:  # several threads may call it, and a second Ctrl-C ends the process at once
            press()
        return inner(*arguments, **options)

    setattr(holder, name, pressing)


def forked(run: Callable[[], None], folder: Path) -> dict:
    """How ``run`` ends in a process, and in a group, of its own."""
    outputs = [folder / "out.txt", folder / "err.txt"]
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        for place, path in enumerate(outputs, start=1):
            os.dup2(os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY), place)
        run()
        sys.exit(77)  # it came back
    _, status = os.waitpid(pid, 0)
    out, err = (path.read_text() for path in outputs)
    return {"status": os.waitstatus_to_exitcode(status), "out": out, "err": err}


def prepare(case: dict) -> Callable[[], None]:
    def run() -> None:
        kind, _, name = case.get("point", "").partition(" ")
        if name:
            sys.meta_path.insert(0, PressWhenImported(name))
        elif kind:
            press_when_called(kind)
        sys.argv = [case["module"], *case["arguments"]]
        runpy.run_module(case["module"], run_name="__main__", alter_sys=True)

    return run


def main(folder: Path) -> None:
    # In a background job of a shell it is ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for case in json.load(sys.stdin):
        for name in case.get("first", ()):
            importlib.import_module(name)
        print(json.dumps(forked(prepare(case), folder)), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
