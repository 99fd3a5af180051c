"""Figures, one module per subject: functions take arrays and tables and return a closed figure, to show or to save.

Nothing here reads a file or computes a score.
"""

from adatosk.plots.cost import macs_by_part, table2_costs
from adatosk.plots.data import action_units, class_balance, motion, sampling
from adatosk.plots.frames import (
    blow_up,
    masks_in_brief,
    masks_over_frames,
    pictures,
    repaint,
    show_visible,
    tint_patches,
)
from adatosk.plots.scores import confusions, learning_curves, probabilities, recalls
from adatosk.plots.steps import frame_differences, gate_weights, tokens_over_time, transition
from adatosk.plots.style import ORANGE, new_figure, use_style
