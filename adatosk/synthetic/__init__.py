"""The embedded benchmark: action units, scripts of clips, drawn faces, video files, and the ground truth of each clip.

Nothing here depends on a model; rendered clips are read like any user's video.
"""

from adatosk.synthetic.action_units import AU_REGIONS, CLASS_UNITS, moving_regions
from adatosk.synthetic.benchmark import (
    GroundTruth,
    build_manifest,
    check_folder,
    encode,
    ground_truth,
    load_truth,
    render,
    sample_identity,
    write_benchmark,
    write_film,
)
from adatosk.synthetic.scripts import BENCHMARKS, BenchmarkConfig, ClipScript, clip_id, sample_script
