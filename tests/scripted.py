"""A trainer that ends as its parameters say: the search is real, only the learning is not.

Handed to the driver in place of `trainer.loop.train`. What happens follows from the learning rate
that the trial was given, so that a test can ask for each outcome by an anchor.
"""

from collections.abc import Iterator
from typing import Any

import torch

from trainer.checkpoint import TrainState
from trainer.config import TrainConfig
from trainer.failure import Cause, Diverged, Failure
from trainer.loop import EpochReport


def report(config: TrainConfig, epoch: int, error: float, **more: Any) -> EpochReport:
    """A report with the given objective and plausible everything else."""
    state = TrainState(config.to_params(), epoch, epoch, {}, {}, {}, torch.zeros(1))
    plain = {
        "losses": {"total": error, "covariance": error},
        "gradient_norm": 1.0,
        "min_eigengap": 0.1,
        "median_eigengap": 0.2,
        "loading": 1e-5,
        "skipped_samples": 0,
        "replaced_samples": 0,
        "learning_rate": 1e-3,
        "success_rate": 1 - error,
        "seconds": 0.01,
        "evaluation": (),
    }
    return EpochReport(epoch=epoch, step=epoch, capped_error=error, state=state, **(plain | more))


def train(config: TrainConfig, *, resume: TrainState | None = None) -> Iterator[EpochReport]:
    """Diverges above a rate of 0.02, crashes above 0.01, learns below: the slower, the worse."""
    rate = config.optimizer.learning_rate
    for epoch in range(1 if resume is None else resume.epoch + 1, config.epochs + 1):
        if epoch == 2 and rate > 0.02:
            raise Diverged(
                Failure(Cause.NONFINITE_GRADIENT, "eigengap", "trunk.0.weight", 7, 2, 1e-9)
            )
        if epoch == 2 and rate > 0.01:
            raise RuntimeError(f"a bug, met at rate {rate}")
        yield report(config, epoch, error=0.5 + 0.1 / epoch - 10 * rate)
