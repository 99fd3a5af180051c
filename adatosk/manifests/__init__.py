"""Manifests: which clips a data set has, with the id, label *name*, and split or fold of each.

On disk, a manifest is a CSV that ``pandas.read_csv(path, comment="#")`` can read (except that
:mod:`adatosk.utils.tables` puts an apostrophe before spreadsheet formulas). It starts with four comment lines::

    # name: own
    # version: 1
    # classes: happy sad neutral
    # clips: 2
    path,id,label,fold,split,frames,subject
    videos/a.mp4,a,happy,,train,64,anna
    videos/b.mp4,b,sad,,test,80,ben

``path`` is relative to a root that is given when clips are read, so a manifest is independent of the machine. Every
problem raises a :class:`ManifestError` that names the file and line, or the clip, and says what to do.
"""

from adatosk.manifests.manifest import Manifest, label_digest
from adatosk.manifests.reading import load, manifest_of, manifest_path
from adatosk.manifests.validation import COLUMNS, checked_classes, label_fault
from adatosk.utils.paths import ManifestError, resolve
