"""The plan of a search: what the command line asked for, checked once, frozen, written down.

`SearchConfig` is what `run.json` holds and what `--resume` reads back, so a resumed search needs
no other flag. It knows neither Ray nor torch.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import spaces
from trainer.config import TrainConfig, require, require_choice

SCHEDULERS = ("asha", "none")
SEEDS = 2**31
"""Seeds are below this: samplers take 32 bits, and a resumed run moves on from its seed."""


@dataclass(frozen=True)
class SearchConfig:
    """A search as planned.

    Attributes:
        preset: a name in `spaces.PRESETS`.
        trials: how many trials in all.
        name: of the run, a folder below `out`.
        out: folder of runs.
        seed: of the sampler; trials train with it too, all with the same, so that they differ in
            their parameters only.
        max_concurrent: trials at a time; None is what the resources allow.
        cpus_per_trial, gpus_per_trial: may be fractions; None GPUs is a quarter where there is a
            GPU, and none elsewhere.
        scheduler: `asha` stops the worse half of the trials at each rung, `none` lets all finish.
        address: of a running Ray cluster, or None for a local Ray.
    """

    preset: str
    trials: int
    name: str
    out: str = "runs"
    seed: int = 0
    max_concurrent: int | None = None
    cpus_per_trial: float = 1.0
    gpus_per_trial: float | None = None
    scheduler: str = "asha"
    address: str | None = None

    def __post_init__(self) -> None:
        spaces.get(self.preset)
        require_choice("--scheduler", self.scheduler, SCHEDULERS)
        require(self.trials >= 1, "--trials >= 1", f"{self.trials}", "Ask for one trial or more.")
        require(
            0 <= self.seed < SEEDS, "0 <= --seed < 2**31", f"{self.seed}", "Use a count from 0."
        )
        require(
            re.fullmatch(r"[\w][\w.-]*", self.name) is not None,
            "--name is letters, digits, dots, dashes and underscores",
            repr(self.name),
            "It becomes a folder's name.",
        )
        if self.max_concurrent is not None:
            require(
                self.max_concurrent >= 1,
                "--max-concurrent >= 1",
                f"{self.max_concurrent}",
                "Leave it out to use all resources.",
            )
        require(
            0 < self.cpus_per_trial < math.inf,
            "--cpus-per-trial > 0, and finite,",
            f"{self.cpus_per_trial}",
            "Fractions are allowed, e.g. 0.5.",
        )
        if self.gpus_per_trial is not None:
            require(
                0 <= self.gpus_per_trial < math.inf,
                "--gpus-per-trial >= 0, and finite,",
                f"{self.gpus_per_trial}",
                "0 trains on the CPU; fractions share a GPU.",
            )

    @property
    def space(self) -> spaces.Space:
        """The preset's search space."""
        return spaces.get(self.preset)

    def train_config(self, drawn: Mapping[str, Any]) -> TrainConfig:
        """A trial's configuration: what the space fixes, the seed, and what was drawn.

        Raises:
            ConfigError: if they break a rule of `TrainConfig`.
        """
        return TrainConfig.from_params({**self.space.fixed, "seed": self.seed, **drawn})

    @property
    def template(self) -> TrainConfig:
        """What all trials share: scene, budget, evaluation."""
        return self.train_config({})

    def as_dict(self) -> dict[str, Any]:
        """JSON-safe; `from_dict` turns it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """A plan read back from `run.json`."""
        return cls(**data)
