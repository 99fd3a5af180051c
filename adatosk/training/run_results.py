"""What a finished run leaves behind, put in place so that scores never stand beside the weights of another training.

All of it is written to ``checkpoints/finishing`` first. Renaming that folder to ``finished`` is the moment at which the
run is done; what is moved from there after that can be moved by the next call as well.
"""

from pathlib import Path

from adatosk.utils.files import remove_folder, sweep
from adatosk.utils.provenance import file_digest, recorded_digest

WEIGHTS = "model.safetensors"
# Weights come last: where they are, the scores that belong to them are.
_FILES = ("predictions.csv", "log.jsonl", "metrics.json")
_FOLDERS = ("best_on_test", "last")


class RunResults:
    """The results of the run in ``runs/<run id>``.

    Attributes:
        folder, checkpoints: where they lie.
        staged: where they are written first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        self.staged, self._finished = self.checkpoints / "finishing", self.checkpoints / "finished"

    @property
    def pending(self) -> bool:
        """Whether results are whole and not yet in their places."""
        return self._finished.is_dir()

    def weights_fit(self) -> bool:
        """Whether the last weights are there and, where the scores name their digest, are the ones they belong to."""
        weights = self.checkpoints / "last" / WEIGHTS
        expected = recorded_digest(weights)
        return weights.is_file() and expected in (None, file_digest(weights))

    def stage(self) -> Path:
        """An empty folder for ``predictions.csv``, ``log.jsonl``, ``metrics.json``, ``best_on_test/`` and ``last/``."""
        remove_folder(self.staged)
        self.staged.mkdir(parents=True)
        return self.staged

    def publish(self) -> None:
        """Put what is staged in place of the results of an earlier training, if there are any."""
        self.staged.rename(self._finished)
        self.settle()

    def settle(self) -> None:
        """Do what a publishing that was cut off left undone, and remove what a killed training left."""
        remove_folder(self.staged)
        sweep(self.folder)
        if not self.pending:
            return
        for name in (*_FILES, *_FOLDERS):
            source = self._finished / name
            target = (self.checkpoints if name in _FOLDERS else self.folder) / name
            if source.exists():
                remove_folder(target)
                source.replace(target)
        remove_folder(self._finished)
