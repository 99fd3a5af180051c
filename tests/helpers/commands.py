"""The command line, called in this process or in one of its own."""

import os
import subprocess
import sys
from pathlib import Path

from typer.testing import CliRunner, Result

from adatosk.cli import app


def command(*arguments: str | Path) -> Result:
    """Run ``adatosk`` with these arguments here; an error that it does not turn into a line is raised."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)


def process(module: str, *arguments: str | Path, **options) -> subprocess.CompletedProcess:
    """Run ``python -m module`` with these arguments in a process of its own; options as for ``subprocess.run``."""
    line = [sys.executable, "-m", module, *map(str, arguments)]
    options = {"capture_output": True, "text": True, "env": {**os.environ, "COLUMNS": "200"}} | options
    return subprocess.run(line, check=False, **options)
