"""Arguments and options that several commands share."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

# An unreadable file is bad input, not wrong usage: the command itself reports it.
argument, option = partial(typer.Argument, readable=False), partial(typer.Option, readable=False)
MODEL_HELP = "Folder of a model, such as outputs/demo/runs/<run id>/checkpoints/last."
A_MODEL = "outputs/demo/runs/RUN/checkpoints/last"
Config = Annotated[Path, argument(help="A run configuration (JSON), in the format of runs/*/config.json.")]
Root = Annotated[Path, option(help="Folder that the manifest's paths are relative to.")]
Device = Annotated[
    str | None,
    option(help="The torch device: cpu, cuda or cuda:1.", show_default="$ADATOSK_DEVICE or the GPU if there is one"),
]
Cache = Annotated[Path | None, option(help="Folder for decoded clips.", show_default="data/cache of the project")]


class Precision(StrEnum):
    """Floating-point precision of inference."""

    FP32 = "fp32"
    BF16 = "bf16"
