"""Paths as a manifest lists them: relative, with forward slashes, and never out of their root."""

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath, PureWindowsPath

ABSENT = "no such file or folder"
# Most paths, of which nothing more has to be asked: no drive, no slash at the start, no backslash.
_ORDINARY = re.compile(r"(?!.:)[^/\\][^\\]*", re.DOTALL)


class ManifestError(ValueError):
    """A manifest, or a clip that it lists, is not as it has to be."""


def short(text: str, most: int = 80) -> str:
    """``text`` for a message: one of a million letters would bury what is said about it."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def resolve(root: str | Path, relative: str) -> Path:
    """Absolute path of ``relative`` under ``root``.

    Raises:
        ManifestError: when it leaves the root (absolute, through ``..`` or through a symbolic link), or when no system
            can follow it: a circle of symbolic links, a NUL byte.
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
        # Since Python 3.13, what cannot be followed is given back as it is.
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
    # 1:30.mp4 is a file's name, for drives are letters.
    if path.startswith("/") or windows.root or (windows.drive and path[0].isalpha()):
        return "is absolute: write it relative to the data set's root"
    if ".." in PurePosixPath(path).parts or ".." in windows.parts:
        return "leaves the root through '..': write it relative to the data set's root"
    if "\\" in path:
        return f"has backslashes: write '{windows.as_posix()}'"
    return ""


def first_fault(paths: Iterable[str]) -> tuple[int, str] | None:
    """Place of the first path with a :func:`path_fault`, and what it is; ``None`` where all are fine."""
    for place, path in enumerate(paths):
        if _ORDINARY.fullmatch(path) and ".." not in path and path.strip("./"):
            continue
        if fault := path_fault(path):
            return place, fault
    return None


def absent(root: str | Path, paths: Iterable[str]) -> dict[int, str]:
    """Places of the paths that are not under ``root``, and why; of paths without a :func:`path_fault`.

    As :func:`resolve` of each and a look whether it exists, at a fraction of the time: the links on the way are
    followed once a folder.
    """
    inside = {"": True}  # by folder: whether it exists, and no link on the way leads out of the root
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
    # Unlike Path.exists, false also where the system refuses to say: too long a name, a folder that may not be read.
    return "" if os.path.exists(there) else f"{short(path)}: {ABSENT}"  # noqa: PTH110
