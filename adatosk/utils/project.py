"""Location of the project: the checkout that contains the package; a wheel includes only cards and manifests."""

from dataclasses import dataclass
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent.parent
# A wheel has neither the workflow nor results; it writes to the current folder.
IS_CHECKOUT = (_PACKAGE.parent / "Snakefile").is_file()
PROJECT = _PACKAGE.parent if IS_CHECKOUT else Path.cwd()
# What is part of the repository, and what this machine makes: both have a folder a profile.
PUBLISHED, OUTPUTS = PROJECT / "results", PROJECT / "outputs"
# The data sets' cards and the embedded benchmark's manifests.
MANIFESTS = (PROJECT if IS_CHECKOUT else _PACKAGE) / "data_manifests"
# Where decoded clips are kept unless another folder is named.
CACHE = PROJECT / "data" / "cache"


class CheckoutError(FileNotFoundError):
    """An installed package was asked for something that only a checkout of the project has."""


def need_checkout(what: str) -> Path:
    """The checkout's folder; a `CheckoutError` says that ``what`` needs one."""
    if not IS_CHECKOUT:
        raise CheckoutError(f"{what} needs a checkout of the project: clone it, and run make setup there")
    return PROJECT


@dataclass(frozen=True)
class Places:
    """Locations on this machine; none of them affects a result.

    Attributes:
        root: folder that the manifest's paths are relative to.
        results: folder that contains ``runs/<run id>/``.
        cache: folder for decoded clips.
        workers: loader processes; ``None`` chooses automatically.
    """

    root: Path
    results: Path
    cache: Path
    workers: int | None = None
