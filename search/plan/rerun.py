"""Reruns of trials under other seeds, perhaps with changes, and the scenes that score them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from trainer.config import EvaluationConfig, TrainConfig, require
from trainer.own_trainer import OwnConfig

OWN_SCENES = 8
"""Maximum of a rerun's own validation and held-out scenes. They change no weight, and its scores
come from fresh scenes; as many as a trial has would take half of the training's time."""


@dataclass(frozen=True)
class Rerun:
    """A training of one trial's configuration, a `TrainConfig` or that of a user's trainer, with
    another seed, and perhaps other settings, which `changes` lists as `name=value`."""

    trial_id: str
    config: Any
    changes: str = ""

    @property
    def seed(self) -> int:
        """The training seed."""
        return int(self.config.to_params()["seed"])

    @property
    def name(self) -> str:
        """An id, equal exactly for equal trainings of one trial."""
        return f"{self.trial_id}-{self.seed}-{self.config.digest[:6]}"

    @property
    def about(self) -> str:
        """A phrase to print."""
        return f"{self.trial_id} {self.changes or 'as found'}, seed {self.seed}"

    @classmethod
    def of_own(cls, trial_id: str, params: Mapping[str, Any], seed: int) -> Self:
        """Return the rerun of the parameters of a user's trainer."""
        return cls(trial_id, OwnConfig.from_params({**params, "seed": seed}))

    @classmethod
    def of(cls, trial_id: str, params: Mapping[str, Any], seed: int, **changed: Any) -> Self:
        """Return the rerun of a trial's parameters with some of them changed; None removes one."""

        def short(value: Any) -> str:
            if value is None:
                return "none"
            return value if isinstance(value, str) else json.dumps(value)

        found = TrainConfig.from_params(params).to_params() | {"seed": seed}
        for name in ("evaluation.num_scenes", "evaluation.num_test_scenes"):
            found[name] = min(found[name], OWN_SCENES)
        merged = {k: v for k, v in (found | changed).items() if v is not None}
        config = TrainConfig.from_params(merged)
        now = config.to_params()
        differ = sorted(
            k for k in {*found, *now} if found.get(k) != now.get(k) and not k.endswith(".sha256")
        )
        return cls(trial_id, config, " ".join(f"{k}={short(now.get(k))}" for k in differ))


MAX_SEEDS = 1000
"""Maximum number of training seeds of one trial's reruns."""


def training_seeds(number: int, count: int) -> list[int]:
    """Return training seeds, up to `MAX_SEEDS`, that the reruns of no other trial have."""
    return [10 * (MAX_SEEDS * (number + 1) + i) for i in range(count)]


@dataclass(frozen=True)
class FreshScenes:
    """Scenes on which nothing was trained or chosen: `num_scenes` for each SNR and K, at `snr_db`
    [dB] or, if None, at the SNRs that the run reports."""

    seed: int
    num_scenes: int
    snr_db: tuple[float, ...] | None = None

    def evaluation(self, config: TrainConfig) -> EvaluationConfig:
        """Return the configuration of the scores; raise ConfigError for scenes that are not fresh,
        or too few."""
        own = config.evaluation
        require(
            self.seed not in (own.seed, own.test_seed),
            "--scene-seed is that of no scenes seen before",
            f"{self.seed}",
            "Choose another.",
        )
        require(
            self.num_scenes >= 2, "--scenes >= 2", f"{self.num_scenes}", "2048 tell finalists."
        )
        snr_db = own.report_snr_db if self.snr_db is None else self.snr_db
        missing = sorted(set(own.objective_snr_db) - set(snr_db))
        require(
            not missing,
            "--snr has the SNRs of the objective",
            f"{', '.join(f'{s:g}' for s in snr_db)} without {', '.join(map(str, missing))}",
            "Add them: verdicts are about the objective.",
        )
        return replace(
            own,
            test_seed=self.seed,
            num_test_scenes=self.num_scenes,
            report_snr_db=snr_db,
            tolerance=0.0,  # all scenes, or what is compared would not pair
        )
