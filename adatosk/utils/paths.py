"""Paths as a manifest lists them: relative, with forward slashes, and never out of their root."""

from pathlib import Path, PurePosixPath, PureWindowsPath


class ManifestError(ValueError):
    """A manifest, or a clip that it lists, is not as it has to be."""


def resolve(root: str | Path, relative: str) -> Path:
    """Absolute path of ``relative`` under ``root``.

    Raises:
        ManifestError: when it leaves the root: absolute, through ``..`` or through a symbolic link.
    """
    if fault := path_fault(relative):
        raise ManifestError(f"{relative}: {fault}")
    root = Path(root).resolve()
    path = (root / relative).resolve()
    if not path.is_relative_to(root):
        raise ManifestError(
            f"{relative}: a symbolic link leads out of the root {root} to {path}: copy the clip under the root, "
            "or name a root that holds both"
        )
    return path


def path_fault(path: str) -> str:
    """What is wrong with a manifest's path, on any system, or an empty string."""
    windows = PureWindowsPath(path)
    if not windows.parts:
        return "is the root itself: write the path of a video or a folder of frames in it"
    if PurePosixPath(path).is_absolute() or windows.anchor:
        return "is absolute: write it relative to the data set's root"
    if ".." in PurePosixPath(path).parts or ".." in windows.parts:
        return "leaves the root through '..': write it relative to the data set's root"
    if "\\" in path:
        return f"has backslashes: write '{windows.as_posix()}'"
    return ""
