"""What each part of the package loads: a decoder waits for no torch, a loader's process for no model code."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

from adatosk.utils.project import PROJECT

# Seconds each, and of no use to who only makes batches.
COMPILER = ("torch._dynamo", "torch._inductor", "sympy", "triton")
LIBRARIES = ("torchvision", "timm", "transformers", "accelerate", "torchmetrics", "fvcore", "seaborn", "scipy.stats")
NOTEBOOKS = sorted((PROJECT / "notebooks").glob("*.ipynb"))


def loaded_by(code: str, names: tuple[str, ...], folder: Path = PROJECT) -> list[str]:
    """Those of ``names`` that a fresh process has loaded after ``code``."""
    script = f"{code}\nimport sys\nprint(*(name for name in {names!r} if name in sys.modules))"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), str(PROJECT / "tests" / "helpers")])}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=folder, env=environment, timeout=600
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()


def test_the_list_of_what_is_loaded_is_no_empty_promise():
    assert loaded_by("import json, sqlite3", ("sqlite3", "json", "wave")) == ["sqlite3", "json"]


def test_decoding_loads_neither_torch_nor_tables():
    unwanted = ("torch", "pandas", "matplotlib", "scipy", "pydantic", "yaml", *LIBRARIES)
    assert loaded_by("import adatosk.video", unwanted) == []


def test_batches_and_models_load_neither_torchs_compiler_nor_libraries_nor_tables():
    unwanted = (*COMPILER, *LIBRARIES, "matplotlib", "scipy", "pandas")
    assert loaded_by("import adatosk.clips, adatosk.model, adatosk.predict", unwanted) == []


def test_planning_runs_and_reading_scores_load_no_torch():
    unwanted = ("torch", "papermill", "matplotlib", "scipy", *LIBRARIES)
    assert loaded_by("import adatosk.experiments.notebooks, adatosk.workspace", unwanted) == []


LOADER = """
import sys
from pathlib import Path
from clip_sources import make_source
from adatosk.clips import ClipDataset, make_loader
from adatosk.config import DataConfig

class Telling(ClipDataset):
    def __getitem__(self, key):
        item = super().__getitem__(key)
        return {**item, "loaded": " ".join(name for name in UNWANTED if name in sys.modules)}

root, manifest = make_source(Path("clips"))
clips = Telling(manifest.subset("train"), root, manifest.classes, 8, 24, DataConfig(manifest="own.csv"), True, 0)
batches = list(make_loader(clips, 2, workers=2, shuffle=True, seed=7))
assert len(batches) == 3 and batches[0]["video"].shape == (2, 3, 8, 24, 24)
for loaded in {loaded for batch in batches for loaded in batch["loaded"]}:
    assert not loaded, loaded
"""


def test_a_loaders_process_loads_neither_torchs_compiler_nor_libraries(tmp_path):
    unwanted = (*COMPILER, *LIBRARIES, "matplotlib", "adatosk.model", "adatosk.transformer")
    assert loaded_by(f"UNWANTED = {unwanted!r}{LOADER}", unwanted, tmp_path) == []


def imports(notebook: Path) -> list[str]:
    """The import statements of a notebook's code, each on a line."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "".join("".join(cell["source"]) + "\n" for cell in cells if cell["cell_type"] == "code")
    plain = "\n".join(line for line in code.splitlines() if not line.lstrip().startswith(("%", "!")))
    return [ast.unparse(node) for node in ast.walk(ast.parse(plain)) if isinstance(node, ast.Import | ast.ImportFrom)]


def test_what_the_notebooks_import_loads_neither_torchs_compiler_nor_libraries():
    statements = sorted({line for notebook in NOTEBOOKS for line in imports(notebook)})
    assert "from adatosk import plots" in statements and len(NOTEBOOKS) > 10
    assert loaded_by("\n".join(statements), (*COMPILER, *LIBRARIES)) == []
