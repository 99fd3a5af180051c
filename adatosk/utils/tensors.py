"""Tensors in a file."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from adatosk.utils.files import replacing


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, :func:`replacing` what is there, and onto the disk before the name is given.

    The library's own ``save_file`` makes files that their owner alone may read, whatever the umask says.
    """
    content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    with replacing(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
