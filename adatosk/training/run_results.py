"""The results of a finished run, published so that scores are never combined with the weights of another training.

All of them are first written to ``checkpoints/finishing``. Renaming that folder to ``finished`` completes the run; if
moving the files from there is interrupted, the next call continues.
"""

from pathlib import Path

from adatosk.utils.files import remove_folder, sweep
from adatosk.utils.provenance import file_digest, recorded_digest, scores_of

WEIGHTS = "model.safetensors"
# Weights come last: once they are in place, so are the scores that belong to them.
READ_BACK = ("predictions.csv", "log.jsonl")
_FILES = (*READ_BACK, "metrics.json")
_FOLDERS = ("best_on_test", "last")


class RunResults:
    """The results of the run in ``runs/<run id>``.

    Attributes:
        folder, checkpoints: where they are published.
        staged: where they are written first.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.checkpoints = folder, folder / "checkpoints"
        self.staged, self._finished = self.checkpoints / "finishing", self.checkpoints / "finished"

    @property
    def pending(self) -> bool:
        """Whether results are complete but not yet all in place."""
        return self._finished.is_dir()

    def weights_fit(self) -> bool:
        """Whether the last weights exist and match the digest in the scores, if it is recorded there."""
        weights = self.checkpoints / "last" / WEIGHTS
        expected = recorded_digest(weights, scores_of(weights))
        return weights.is_file() and (expected is None or file_digest(weights) == expected)

    def stage(self) -> Path:
        """An empty folder for ``predictions.csv``, ``log.jsonl``, ``metrics.json``, ``best_on_test/`` and ``last/``."""
        remove_folder(self.staged)
        self.staged.mkdir(parents=True)
        return self.staged

    def publish(self) -> None:
        """Publish the staged results, replacing those of an earlier training, if any."""
        self.staged.rename(self._finished)
        self.settle()

    def settle(self) -> None:
        """Complete an interrupted publication, and remove what a killed training left."""
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


def epoch_in_words(entry: dict[str, float]) -> str:
    """A line of the log, short enough for a notebook, which breaks longer ones inside words."""
    parts = f"reconstruction {entry['reconstruction_loss']:.4g}, classification {entry['classification_loss']:.4g}"
    war = f", test WAR {entry['test_war_views_1']:.1f} %" if "test_war_views_1" in entry else ""
    return f"loss {entry['loss']:.4g} ({parts}), {entry['seconds']:.3g} s{war}"
