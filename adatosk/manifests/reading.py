"""Manifests from their files, by path or for a run."""

import re
from functools import cache
from pathlib import Path

from adatosk.config import RunConfig
from adatosk.manifests.manifest import HEADERS, Manifest
from adatosk.manifests.validation import COLUMNS, REQUIRED, check_names, checked_classes
from adatosk.utils.paths import ManifestError, short
from adatosk.utils.project import MANIFESTS
from adatosk.utils.tables import SEPARATORS, read_table, read_text


def manifest_path(config: RunConfig) -> Path:
    """Path of a run's manifest: as configured if that exists, otherwise under the project's ``data_manifests/``."""
    named = Path(config.data.manifest)
    return named if named.is_file() else MANIFESTS / named


def manifest_of(config: RunConfig) -> Manifest:
    """The manifest of a run. An unchanged file is read only once, because a grid asks for it row by row."""
    path = manifest_path(config)
    status = path.stat() if path.is_file() else None
    return _read(path, status and (status.st_size, status.st_mtime_ns))


@cache
def _read(path: Path, stamp: tuple[int, int] | None) -> Manifest:
    return load(path)


def load(path: str | Path) -> Manifest:
    """Read a manifest; a byte-order mark and Windows line endings are accepted.

    Raises:
        ManifestError: naming the file and, where possible, the line.
    """
    path = Path(path)
    if not path.is_file():
        raise ManifestError(f"{path}: no such manifest: check the name, or build one with adatosk.datasets.build")
    text = read_text(path)
    if not text.strip():
        raise ManifestError(f"{path}: the manifest is empty: write it again, or fetch it again")
    header = _header(path, text)
    for key in ("name", "classes"):
        if not header.get(key):
            example = "own" if key == "name" else "happy sad neutral"
            raise ManifestError(f"{path}: no header line '# {key}: …': add one such as '# {key}: {example}'")
    name, version = header["name"], header.get("version", "")
    check_names(name, version, str(path))
    classes = checked_classes(header["classes"].split(), lambda _: str(path))
    clips, lines = read_table(path, text, REQUIRED, COLUMNS, comments=True)
    _check_count(path, header.get("clips"), len(clips))
    return Manifest(name, version, classes, clips, lambda row: f"{path}, line {lines[row]}")


def _header(path: Path, text: str) -> dict[str, str]:
    """The keys and values in the comment lines; ManifestError for one of ``HEADERS`` with two values."""
    header: dict[str, str] = {}
    for line in re.findall("^#.*", text, re.MULTILINE):
        key, _, value = line.lstrip("# ").partition(":")
        # A spreadsheet pads the header lines with separators to the table's width.
        key, value = key.strip().lower(), value.strip().rstrip("".join(SEPARATORS)).rstrip()
        if key in HEADERS and header.get(key, value) != value:
            said = f"'{short(header[key])}' and '{short(value)}'"
            raise ManifestError(f"{path}: two header lines '# {key}: …', {said}: delete one of them")
        header.setdefault(key, value)
    return header


def _check_count(path: Path, said: str | None, found: int) -> None:
    if not found:
        raise ManifestError(f"{path}: the manifest lists no clips: write it again, or fetch it again")
    if said is not None and said != str(found):
        raise ManifestError(
            f"{path}: the header says {said} clips, the table has {found}: fetch it again if it was cut short, "
            f"or correct the header to '# clips: {found}'"
        )
