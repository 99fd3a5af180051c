"""From a manifest's clip to a batch: the decoded-clip cache, the loader, augmentation, and face detection.

Nothing here depends on a model or on a run's results; a loader's process needs only torch, NumPy and the decoders.
"""

from adatosk.clips.batches import model_input, model_pixels
from adatosk.clips.cache import CacheError, ClipCache, estimate_cache, open_cache, open_clips
from adatosk.clips.dataset import ClipDataset
from adatosk.clips.loader import make_loader
from adatosk.tokens import IMAGENET_MEAN, IMAGENET_STD, normalise
