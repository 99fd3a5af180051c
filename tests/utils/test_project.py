"""The project as a whole: its four doors to the environment agree, its manifests and README are what the code makes."""

import json
import re
import sys
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version

from adatosk.experiments import report
from adatosk.manifests import load
from adatosk.synthetic import BENCHMARKS, build_manifest
from adatosk.utils.project import MANIFESTS, PROJECT, PUBLISHED

PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())
LOCK = (PROJECT / "requirements.lock").read_text()
# Made by make test-lowest.
IS_LOWEST = Path(sys.prefix).name == ".venv-lowest"


def pins() -> dict[str, list[Requirement]]:
    """Locked requirements by name; a package may be pinned once for each range of Python."""
    found: dict[str, list[Requirement]] = {}
    for line in LOCK.splitlines():
        if line and not line.startswith((" ", "#")):
            requirement = Requirement(line.rstrip(" \\"))
            found.setdefault(requirement.name.lower().replace("_", "-"), []).append(requirement)
    return found


def declared() -> list[Requirement]:
    project = PYPROJECT["project"]
    lines = (
        project["dependencies"]
        + project["optional-dependencies"]["dev"]
        + PYPROJECT["tool"]["uv"]["constraint-dependencies"]
    )
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("wanted", declared(), ids=str)
def test_every_declared_package_is_locked_within_its_range(wanted):
    locked = pins().get(wanted.name.lower())
    assert locked, f"{wanted.name} is not in requirements.lock: make lock"
    for pin in locked:
        (pinned,) = pin.specifier
        assert pinned.operator == "=="
        assert wanted.specifier.contains(pinned.version, prereleases=True), f"{pin} is not {wanted}: make lock"


def test_the_lock_is_hashed_and_names_no_server():
    blocks = re.split(r"\n(?=\S)", LOCK.strip())
    assert all("--hash=sha256:" in block for block in blocks)
    assert "://" not in LOCK


@pytest.mark.skipif(IS_LOWEST, reason="has the lowest declared versions, not the locked ones")
def test_what_is_installed_is_what_is_locked():
    for name in ("torch", "timm", "einops", "fvcore", "papermill", "nbval", "seaborn"):
        locked = {next(iter(pin.specifier)).version for pin in pins()[name]}
        assert Version(version(name)).public in locked, f"{name}: rm -r .venv && make setup"


@pytest.mark.skipif(not IS_LOWEST, reason="only make test-lowest installs the lowest declared versions")
@pytest.mark.parametrize("wanted", [one for one in declared() if one.marker is None or one.marker.evaluate()], ids=str)
def test_a_declared_bound_is_what_the_tests_ran_with(wanted):
    """A bound that something else raises would be a promise that nobody has tried."""
    if wanted.name == "torch" and wanted not in map(Requirement, PYPROJECT["project"]["dependencies"]):
        pytest.skip("constrains the lock alone")
    (bound,) = [one.version for one in wanted.specifier if one.operator == ">="]
    installed = Version(version(wanted.name)).release
    assert installed[: len(Version(bound).release)] == Version(bound).release


def test_conda_installs_the_same_lock_on_a_python_that_is_supported():
    environment = yaml.safe_load((PROJECT / "environment.yml").read_text())
    python, pip, further = environment["dependencies"]
    assert pip == "pip" and further == {"pip": ["-r requirements.lock"]}
    assert Requirement(python.replace("=", "==", 1)).name == "python"
    supported = Requirement(f"python{PYPROJECT['project']['requires-python']}").specifier
    assert supported.contains(python.split("=")[1])


@pytest.mark.parametrize("name", list(BENCHMARKS))
def test_the_committed_manifests_are_those_that_the_code_renders(name):
    committed, made = load(MANIFESTS / f"{name}.csv"), build_manifest(BENCHMARKS[name])
    assert committed.digest == made.digest
    assert committed.classes == made.classes
    assert committed.clips.equals(made.clips) or committed.clips.astype(str).equals(made.clips.astype(str))


@pytest.mark.parametrize(
    ("page", "block"), [("README.md", report.headline_block), ("RESULTS.md", report.results_block)]
)
def test_a_page_shows_what_the_published_runs_give(page, block):
    shown = (PROJECT / page).read_text().partition(report.BEGIN)[2].partition(report.END)[0].strip()
    assert shown == block("demo", PUBLISHED / "demo").strip()


def test_the_readme_is_short_and_begins_with_the_two_commands():
    readme = (PROJECT / "README.md").read_text()
    assert len(readme) <= 10_000
    assert "\nmake reproduce " in readme[:2_500] and "\nmake test " in readme[:2_500]


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "RESULTS.md",
        "CONTRIBUTING.md",
        "docs/interpretation.md",
        "docs/your_data.md",
        "docs/cluster.md",
        "docs/scale.md",
    ],
)
def test_every_link_of_a_page_leads_somewhere(page):
    path = PROJECT / page
    targets = re.findall(r"\]\(([^)]+)\)|src=\"([^\"]+)\"", path.read_text())
    assert targets
    for file, _, heading in (part.partition("#") for pair in targets for part in pair if part):
        linked = (path.parent / file) if file else path
        assert "://" in file or linked.exists(), file
        if heading and linked.suffix == ".md":
            names = [
                re.sub(r"[^\w -]", "", line.strip("# ")) for line in linked.read_text().splitlines() if line[:1] == "#"
            ]
            assert heading in [name.lower().replace(" ", "-") for name in names], heading


@pytest.mark.parametrize("path", sorted((PROJECT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_every_link_of_a_notebook_leads_somewhere(path):
    prose = [
        "".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "markdown"
    ]
    for target in re.findall(r"\]\(([^)#]+\.(?:ipynb|py|md))\)", "\n".join(prose)):
        assert (path.parent / target).exists(), target


def recipe(target: str) -> list[str]:
    """The commands of a target in the Makefile."""
    (lines,) = re.findall(rf"^{target}:.*\n((?:\t.*\n)+)", (PROJECT / "Makefile").read_text(), re.MULTILINE)
    return [line.strip().replace("$(BIN)", ".venv/bin") for line in lines.splitlines()]


def test_pre_commit_runs_the_linters_of_make_lint():
    (local,) = yaml.safe_load((PROJECT / ".pre-commit-config.yaml").read_text())["repos"]
    assert local["repo"] == "local"
    assert [hook["entry"] for hook in local["hooks"]] == recipe("lint")
    assert all(hook["language"] == "system" and not hook["pass_filenames"] for hook in local["hooks"])


def test_contributing_names_every_room_in_the_order_of_its_imports():
    (layers,) = [
        contract["layers"] for contract in PYPROJECT["tool"]["importlinter"]["contracts"] if "layers" in contract
    ]
    order = [room for layer in layers for room in re.split(r"\s*:\s*", layer)]
    text = (PROJECT / "CONTRIBUTING.md").read_text()
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == order


def test_contributing_names_targets_that_the_makefile_has():
    named = set(re.findall(r"^make ([\w-]+)", (PROJECT / "CONTRIBUTING.md").read_text(), re.MULTILINE))
    makefile = (PROJECT / "Makefile").read_text()
    assert {"setup", "test", "lint"} <= named
    assert named <= set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))


def test_ci_runs_the_readmes_test_command():
    assert "make test" in (PROJECT / ".ci" / "run").read_text()
