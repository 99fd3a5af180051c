"""What ``python -m adatosk.train`` and the like do: run that command, as ``python -m adatosk train`` does."""

import sys
from runpy import run_module


def run_command(name: str) -> None:
    """Run the command line with ``name`` before the arguments, and exit as it does."""
    sys.argv.insert(1, name)
    run_module("adatosk", run_name="__main__", alter_sys=True)
