"""The trained weights that come with the repository: Table 1's pair on rendered faces, profile ``demo``, first seed.

``make reproduce`` trains them, and ``make publish`` copies them to ``results/demo/weights/`` with the scores that
belong to them and a model card. Nothing that trains or evaluates a run reads them: a reproduction starts from random
weights, and ends by comparing its own with these.
"""

from pathlib import Path

from adatosk.utils.project import PUBLISHED, need_checkout

PROFILE = "demo"
# By the rows of Table 1.
FOLDERS = {"with soft mask": "with-soft-mask", "without soft mask": "without-soft-mask"}
FILES = ("config.json", "model.safetensors", "metrics.json")


def shipped(name: str = "with soft mask") -> Path:
    """The folder of shipped weights, for ``AdaTosk.from_pretrained``, which compares them with their digest.

    Args:
        name: a row of Table 1, a key of ``FOLDERS``.

    Raises:
        CheckoutError: the package is installed without the repository, which has the weights.
        FileNotFoundError: a file of theirs is missing.
        ValueError: no model of that name ships.
    """
    if name not in FOLDERS:
        raise ValueError(f"no model '{name}' ships: choose {', '.join(FOLDERS)}")
    need_checkout("the model that ships with the project, taken where none is named,")
    folder = PUBLISHED / PROFILE / "weights" / FOLDERS[name]
    for file in FILES:
        if not (folder / file).is_file():
            raise FileNotFoundError(
                f"{folder / file}: missing, although the project ships it: git checkout restores it"
            )
    return folder
