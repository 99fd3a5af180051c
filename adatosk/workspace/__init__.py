"""Where a profile's data, runs, tables and figures are stored, and how a notebook accesses them.

Notebooks read the workflow's runs through this module, by configuration. Reading trains nothing unless the workspace
was opened with ``train_missing``, which is the default for profile ``smoke``, whose runs take seconds.
"""

from adatosk.workspace.data import check_data, data_root, prepare_data
from adatosk.workspace.parameters import read_parameters
from adatosk.workspace.published import RUN_FILES, adopt_published
from adatosk.workspace.runs import Run, Workspace, open_workspace
