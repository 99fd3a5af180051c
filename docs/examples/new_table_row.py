"""One more row in a table: add it to the grid, train its runs, print the table with the differences to the reference.

python docs/examples/new_table_row.py [PROFILE]
"""

import sys

from adatosk.experiments import tables
from adatosk.experiments.grid import TABLES, Row, table4
from adatosk.workspace import open_workspace


def with_k_1(base):
    """Table 4 and, below it, L1 with a single active frame."""
    return [*table4(base), Row("l1, K = 1", base.change(model={"soft_mask": {"top_k": 1}}))]


TABLES["table4"] = with_k_1

if __name__ == "__main__":  # the processes that render the clips import this file, too
    workspace = open_workspace(sys.argv[1] if len(sys.argv) > 1 else "smoke", train_missing=True)
    rows = [row for row in TABLES["table4"](workspace.config) if row.name.startswith("l1")]
    scores = tables.run_rows(workspace, rows, at_most=1)
    print(tables.against(scores, "l1")[["war", "repeats", "difference"]].to_string())
