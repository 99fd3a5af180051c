"""From a video file or a folder of images to frames: choice of the decoder, sampling, and detection of damage.

Nothing here depends on manifests, labels or models, and torch is imported only when frames are resized.
"""

from adatosk.video.folders import IMAGE_SUFFIXES, VideoError
from adatosk.video.proven import HAS_DECORD
from adatosk.video.reading import count_frames, decode_all, open_stream, read_clip, read_frames, stamp
from adatosk.video.sampling import frame_indices, last_start
