"""The real trainer, except that one configuration meets a NaN in its third training step; and a
configuration with exactly equal eigenvalues."""

import dataclasses
from collections.abc import Iterator

import trainer.training.loop
from trainer.config import TrainConfig
from trainer.scenes.measurement import Scenes
from trainer.training.checkpoint import TrainState
from trainer.training.loop import EpochReport

POISONED_RATE = 0.011
EXACT_TIES = {
    "network.kind": "factor",
    "network.rank": 8,
    "covariance.blend_bound": 0.3,
    "eigengap.weight": 0.5,
    "eigengap.definition": "subspace",
    "eigengap.margin_subspace": 0.0,
    "eps_psd": 0.1,
}
"""N - r noise eigenvalues of a factor are exactly equal: eigh has no derivative there."""
honest = trainer.training.loop.simulate


def train(config: TrainConfig, *, resume: TrainState | None = None) -> Iterator[EpochReport]:
    """Train; at `POISONED_RATE` the snapshots of step 3 hold a NaN."""
    steps = iter(range(1, 1_000_000))

    def simulate(*args: object, **kwargs: object) -> Scenes:
        scenes = honest(*args, **kwargs)  # type: ignore[arg-type]
        if config.optimizer.learning_rate == POISONED_RATE and next(steps) == 3:
            snapshots = scenes.snapshots.clone()
            snapshots[0, 0, 0] = float("nan")
            scenes = dataclasses.replace(scenes, snapshots=snapshots)
        return scenes

    trainer.training.loop.simulate = simulate  # type: ignore[assignment]
    try:
        yield from trainer.training.loop.train(config, resume=resume)
    finally:
        trainer.training.loop.simulate = honest
