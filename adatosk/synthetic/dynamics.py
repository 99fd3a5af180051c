"""How expressions move in time, in the figures that are known of real faces."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from adatosk.synthetic.scripts import ClipScript
from adatosk.video import frame_indices

STEPS, SAMPLED = 8, 16  # the paper's temporal positions and frames of a clip
SMOOTHED = 5  # frames over which the real intensities were averaged
TOP = 4  # K, the paper's active frames

# RAVDESS: 300 clips of 5 actors who speak and sing, 8 labels; intensities (0 to 5) of 16 action units that OpenFace
# tracked, divided by 5 and averaged over 5 frames.
REAL = pd.Series(
    {"largest": 0.226, "four_largest": 0.703, "moving": 6.75, "range": 1.61, "above_middle": 0.50, "frames": 112.0},
    name="RAVDESS",
)
REAL_BY_LABEL = pd.DataFrame(
    {
        "range": {
            "happy": 1.88, "sad": 1.34, "neutral": 1.20, "angry": 2.04, "surprise": 1.18, "disgust": 2.33, "fear": 1.16,
        },
        "above_middle": {
            "happy": 0.69, "sad": 0.5, "neutral": 0.44, "angry": 0.35, "surprise": 0.42, "disgust": 0.60, "fear": 0.43,
        },
    }
)  # fmt: skip


def dynamics(scripts: Iterable[ClipScript]) -> pd.DataFrame:
    """How the action units of each clip move; what moves the head, the lids and the light does not count.

    A clip is sampled as for the model: 16 frames at stride 4 from its middle, two to a step. The change of a step is
    the sum over units of the absolute difference from the step before; there are 7 in a clip.

    Returns:
        one row per clip: ``label``, ``largest`` and ``four_largest`` (shares of the clip's change in its largest step
        and in its four largest), ``moving`` (steps that change by more than a quarter of the largest), ``range``
        (summed intensity, highest minus lowest frame), ``above_middle`` (share of the frames above the middle of that
        range), ``frames``.
    """
    return pd.DataFrame([{"label": script.label, **_of_one(script.motion.action_units)} for script in scripts])


def _of_one(units: np.ndarray) -> dict[str, float]:
    smooth = _running_mean(units)
    steps = smooth[frame_indices(len(units), SAMPLED)].reshape(STEPS, -1, units.shape[1]).mean(1)
    change = np.sort(np.abs(np.diff(steps, axis=0)).sum(1))[::-1]
    total = change.sum() or 1.0
    summed = smooth.sum(1)
    spread = float(np.ptp(summed))
    return {
        "largest": change[0] / total,
        "four_largest": change[:TOP].sum() / total,
        "moving": float((change > change[0] / 4).sum()),
        "range": spread,
        "above_middle": float((summed > summed.min() + spread / 2).mean()),
        "frames": float(len(units)),
    }


def _running_mean(units: np.ndarray) -> np.ndarray:
    """Mean over ``SMOOTHED`` frames, the ends repeated: ``(T, units)`` to the same."""
    padded = np.pad(units, ((SMOOTHED // 2, SMOOTHED // 2), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, SMOOTHED, axis=0).mean(-1)
