"""Tensors in a file."""

import os
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from adatosk.utils.files import replacing


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors as safetensors, :func:`replacing` an existing file once the data is on the disk.

    The library's own ``save_file`` ignores the umask and creates files that only their owner may read.
    """
    content = save({name: value.detach().cpu().contiguous() for name, value in tensors.items()})
    with replacing(path) as part, part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
