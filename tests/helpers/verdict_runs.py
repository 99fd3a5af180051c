"""Committed-looking scores of every run in Tables 1 to 4, with effects that a test chooses."""

import json
from pathlib import Path
from zlib import crc32

from adatosk.config import RunConfig
from adatosk.experiments import grid
from adatosk.manifests import manifest_of
from adatosk.presets import PROFILES

DEMO = PROFILES["demo"]
# Points of WAR above the whole model, by row; rows that are left out are equal to it.
AS_CLAIMED = {
    grid.WITHOUT: -2.0, "25%, r=0": -1.0, "25%, r=2": -1.1, "50%, r=0": -0.4, "50%, r=2": -0.5, "70%, r=0": 0.1,
    "CA": -2.0, "CS (A+M)": -1.0, "CS (M)": -1.3, "CS (A)": -1.2, "l2": -1.0, "cosine": -2.0, "classification": -3.0,
}  # fmt: skip


def write_runs(results: Path, base: RunConfig, effects: dict[str, float], spread: float = 0.1) -> None:
    """Runs of Tables 1 to 4 whose WAR is 80, the row's effect, a part of the seed, and ``spread`` of their own."""
    digest = manifest_of(base).digest
    for table in ("table1", "table2", "table3", "table4"):
        for row in grid.TABLES[table](base):
            for place, config in enumerate(grid.repeated(row)):
                folder = results / "runs" / config.run_id(digest)
                if not folder.exists():
                    folder.mkdir(parents=True)
                    own = spread * crc32(f"{row.name} {place}".encode()) / 2**32
                    war = 80 + 2 * (place % 5) + effects.get(row.name, 0.0) + own
                    scores = {"views_1": {"uar": war - 1, "war": war}}
                    (folder / "metrics.json").write_text(json.dumps({"last": scores, "train_seconds": 1.0}))
