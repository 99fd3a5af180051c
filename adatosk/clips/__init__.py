"""From a manifest's clip to a batch: the decoded-clip cache, the loader, augmentation, and face detection.

Nothing here depends on a model or on a run's results; a loader's process needs only torch, NumPy and the decoders.
"""

from adatosk.clips.batches import IMAGENET_MEAN, IMAGENET_STD, model_input, normalise
from adatosk.clips.cache import CacheError, ClipCache, estimate_cache, open_cache, open_clips
from adatosk.clips.dataset import ClipDataset, make_loader
