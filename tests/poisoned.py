"""The real trainer, but for a NaN that one configuration meets in its third training step."""

import dataclasses
from collections.abc import Iterator

import trainer.loop
from trainer.checkpoint import TrainState
from trainer.config import TrainConfig
from trainer.loop import EpochReport
from trainer.scenes.simulation import Scenes

POISONED_RATE = 0.011
honest = trainer.loop.simulate


def train(config: TrainConfig, *, resume: TrainState | None = None) -> Iterator[EpochReport]:
    """Trains; at `POISONED_RATE` the snapshots of step 3 hold a NaN."""
    steps = iter(range(1, 1_000_000))

    def simulate(*args: object, **kwargs: object) -> Scenes:
        scenes = honest(*args, **kwargs)  # type: ignore[arg-type]
        if config.optimizer.learning_rate == POISONED_RATE and next(steps) == 3:
            snapshots = scenes.snapshots.clone()
            snapshots[0, 0, 0] = float("nan")
            scenes = dataclasses.replace(scenes, snapshots=snapshots)
        return scenes

    trainer.loop.simulate = simulate  # type: ignore[assignment]
    try:
        yield from trainer.loop.train(config, resume=resume)
    finally:
        trainer.loop.simulate = honest
