"""Training runs that several tests start."""

import pytest

from adatosk.config import RunConfig
from adatosk.train import Places, Trainer, train


def train_cut_off(config: RunConfig, places: Places, weights: bool = False) -> None:
    """Train one epoch of a run, which is then cut off in the second."""
    inner = Trainer._train_epoch

    def stop_in_epoch_two(self, epoch):
        if epoch == 1:
            raise KeyboardInterrupt
        inner(self, epoch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_train_epoch", stop_in_epoch_two)
        with pytest.raises(KeyboardInterrupt):
            train(config, places, weights, report=lambda line: None)
