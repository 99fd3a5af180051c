"""Paths in a manifest: relative, with forward slashes, and always under their root."""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

ABSENT = "no such file or folder"
# Matches most paths, which need no further check: no drive, no leading slash, no backslash.
_ORDINARY = re.compile(r"(?!.:)[^/\\][^\\]*", re.DOTALL)


class ManifestError(ValueError):
    """A manifest, or a clip that it lists, is invalid."""


def short(text: str, most: int = 80) -> str:
    """``text`` shortened for a message, because a very long one would bury the rest."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def resolve(root: str | Path, relative: str) -> Path:
    """Absolute path of ``relative`` under ``root``.

    Raises:
        ManifestError: it leaves the root (absolute, through ``..`` or through a symbolic link), or cannot be followed
            (circular symbolic links, a NUL byte).
    """
    if fault := path_fault(relative):
        raise ManifestError(f"{short(relative)}: {fault}")
    if "\0" in relative:
        raise ManifestError(f"{short(relative)!r}: a path cannot have a NUL byte: write the clip's path anew")
    root = _followed(Path(root), str(root))
    path = _followed(root / relative, relative)
    if not path.is_relative_to(root):
        raise ManifestError(
            f"{short(relative)}: a symbolic link leads out of the root {root} to {path}: copy the clip under the root, "
            "or name a root that holds both"
        )
    return path


def _followed(path: Path, name: str) -> Path:
    try:
        found = path.resolve()
        # Since Python 3.13, a path that cannot be followed is returned unchanged.
        circle = found.is_symlink()
    except (OSError, RuntimeError, ValueError) as error:
        found, circle = path, isinstance(error, RuntimeError)
        if not circle:
            why = getattr(error, "strerror", None) or error
            raise ManifestError(f"{short(name)!r}: a path that cannot be followed ({why}): write it anew") from error
    if circle:
        raise ManifestError(f"{short(name)}: symbolic links lead in a circle: put the clip itself in their place")
    return found


def path_fault(path: str) -> str:
    """What is wrong with a manifest's path, on any system, or an empty string."""
    windows = PureWindowsPath(path)
    if not windows.parts:
        return "is the root itself: write the path of a video or a folder of frames in it"
    # 1:30.mp4 is a file name, because drives are letters.
    if path.startswith("/") or windows.root or (windows.drive and path[0].isalpha()):
        return "is absolute: write it relative to the data set's root"
    if ".." in PurePosixPath(path).parts or ".." in windows.parts:
        return "leaves the root through '..': write it relative to the data set's root"
    if "\\" in path:
        return f"has backslashes: write '{windows.as_posix()}'"
    return ""


def first_fault(paths: Iterable[str]) -> tuple[int, str] | None:
    """Index of the first path with a :func:`path_fault`, and the fault; ``None`` if all are fine."""
    for place, path in enumerate(paths):
        if _ORDINARY.fullmatch(path) and ".." not in path and path.strip("./"):
            continue
        if fault := path_fault(path):
            return place, fault
    return None


def absent(root: str | Path, paths: Iterable[str]) -> dict[int, str]:
    """Indices of the paths that are not under ``root``, and why; the paths must have no :func:`path_fault`.

    Equivalent to :func:`resolve` and a check for existence, but much faster: links are followed once per folder.
    """
    inside = {"": True}  # by folder: whether it exists, and no link in its path leads out of the root
    missing = {}
    for place, path in enumerate(paths):
        folder, _, _ = path.rpartition("/")
        if folder not in inside:
            inside[folder] = not _why_absent(root, folder)
        try:
            linked = stat.S_ISLNK(os.lstat(f"{root}/{path}").st_mode)
        except FileNotFoundError:
            linked = False
            if inside[folder]:
                missing[place] = f"{short(path)}: {ABSENT}"
        except (OSError, ValueError):
            linked = True
        if (linked or not inside[folder]) and (why := _why_absent(root, path)):
            missing[place] = why
    return missing


def _why_absent(root: str | Path, path: str) -> str:
    try:
        there = resolve(root, path)
    except ManifestError as error:
        return str(error)
    # Unlike Path.exists, this is false, not an error, for names that are too long and unreadable folders.
    return "" if os.path.exists(there) else f"{short(path)}: {ABSENT}"  # noqa: PTH110
