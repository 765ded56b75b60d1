"""Kept limits: the least expected capped error of any estimator, per law of scenes and seed.

`trainer.evaluation` computes them (`python -m trainer limit`) and says what they are. They are
kept in a folder per law and seed, with a JSON file per SNR and K that grows by chunks of scenes,
so that a computation resumes. Those of the default scenes ship with the package; others are kept
in `limit_cache()`. No torch.
"""

import dataclasses
import hashlib
import json
import math
import os
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.atomic import write_atomically
from trainer.config import (
    LIMIT_NAMES,
    ConfigError,
    EvaluationConfig,
    SceneConfig,
    TrainConfig,
)
from trainer.intervals import bootstrap_mean, normal_mean

LIMITS = dict(zip(LIMIT_NAMES, ("shape", "blind"), strict=True))
"""Observers by the names of their rows."""
LIMIT_SOURCES = 2
"""Largest K whose limit can be computed."""
PACKAGED = Path(__file__).parent / "kept_limits"
DIGITS = 4
"""Decimals that are kept; a mean over scenes is known to two or three."""
LEAST_DRAWS = 50.0
"""Effective draws below which a scene is poorly sampled."""
POOR_SHARE = 0.02
"""Largest share of such scenes."""
LARGEST_DEVIATION = 4.0
"""Largest mean of realised minus expected error, in standard errors."""

Rows = list[Mapping[str, Any]]


@dataclass(frozen=True)
class LimitScenes:
    """The limit of one observer at one SNR and K in scenes 0, 1, ..., [S] each.

    Attributes:
        error: capped error of the Bayes estimate.
        expected: that error as the posterior expects it.
        draws: effective sample size of the posterior.
    """

    error: NDArray[np.float64]
    expected: NDArray[np.float64]
    draws: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.error)

    def joined(self, more: "LimitScenes") -> "LimitScenes":
        """Return these scenes and then those."""
        columns = vars(more)
        return LimitScenes(**{k: np.concatenate([v, columns[k]]) for k, v in vars(self).items()})


LimitByObserver = dict[str, LimitScenes]
"""What is kept of an SNR and K, by observer; empty if nothing is."""


def fault_of(point: LimitByObserver, observer: str) -> str | None:
    """Return why an observer's numbers at a point are not to be used, or None.

    Draws and law are right only if realised and expected error have the same mean. That is so at
    every SNR for *shape*, which knows it; *blind*, of the same draws, expects over all SNRs.
    """
    scenes = point[observer]
    poor = float((scenes.draws < LEAST_DRAWS).mean())
    if poor > POOR_SHARE:
        return f"{poor:.1%} of {len(scenes)} scenes have fewer than {LEAST_DRAWS:g} draws' worth"
    shape = point[LIMITS[LIMIT_NAMES[0]]]
    surplus = shape.error - shape.expected
    spread = float(surplus.std()) / math.sqrt(len(shape))
    if abs(float(surplus.mean())) > LARGEST_DEVIATION * spread + 10**-DIGITS:
        return (
            f"realised minus expected error is {normal_mean(surplus)}, more than "
            f"{LARGEST_DEVIATION:g} standard errors"
        )
    return None


@dataclass(frozen=True)
class KeptLimits:
    """The limits of the evaluation scenes of one law and seed."""

    scene: SceneConfig
    seed: int

    @property
    def digest(self) -> str:
        """Twelve hex digits of a hash of the seed and of what differs from the default law."""
        text = json.dumps([self._different(), self.seed], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def point(self, snr_db: float, num_sources: int) -> LimitByObserver:
        """Return what is kept of a point, in the package or in the cache, where it has more."""
        places = (PACKAGED, limit_cache())
        return max((self.load(folder, snr_db, num_sources) for folder in places), key=scenes_in)

    def load(self, folder: Path, snr_db: float, num_sources: int) -> LimitByObserver:
        """Return what a folder keeps of a point, {} if nothing, or if it is of another law.

        Raises:
            ConfigError: if its file is damaged.
        """
        path = self._path(folder, snr_db, num_sources)
        if not path.is_file():
            return {}
        try:
            record = json.loads(path.read_bytes())
            if not self._is_of(record["scene"]):
                return {}
            observers = {name: record["observers"][name] for name in LIMITS.values()}
            return {
                name: LimitScenes(**{column: np.array(v) for column, v in kept.items()})
                for name, kept in observers.items()
            }
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"{path} must hold a kept limit, but it cannot be read ({error}). Delete it: "
                "`python -m trainer limit` makes it again."
            ) from error

    def save(self, folder: Path, snr_db: float, num_sources: int, point: LimitByObserver) -> None:
        """Keep a point in a folder.

        Raises:
            OSError: if it cannot be written.
        """
        observers = {
            name: {column: v.round(DIGITS).tolist() for column, v in vars(scenes).items()}
            | {"draws": scenes.draws.round(0).tolist()}
            for name, scenes in point.items()
        }
        about = {"scene": dataclasses.asdict(self.scene), "seed": self.seed}
        about |= {"snr_db": snr_db, "num_sources": num_sources}
        content = json.dumps(about | {"observers": observers})
        path = self._path(folder, snr_db, num_sources)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content.encode())

    def usable(
        self, name: str, snr_db: Sequence[float], counts: Sequence[int], num_scenes: int
    ) -> dict[tuple[float, int], NDArray[np.float64]]:
        """Return errors per scene, by SNR and K, of at most the first `num_scenes`.

        An SNR is left out unless all its K are kept without fault: means over K then compare.
        """
        observer = LIMITS[name]
        found: dict[tuple[float, int], NDArray[np.float64]] = {}
        for snr in snr_db:
            points = {(snr, k): self.point(snr, k) for k in counts}
            if all(p and fault_of(p, observer) is None for p in points.values()):
                found |= {at: p[observer].error[:num_scenes] for at, p in points.items()}
        return found

    def command(self) -> str:
        """Return the command that computes the limits of these scenes."""
        words = [
            shlex.quote(f"scene.{name}={value if isinstance(value, str) else json.dumps(value)}")
            for name, value in self._different().items()
        ]
        if self.seed != EvaluationConfig().test_seed:
            words.append(f"evaluation.test_seed={self.seed}")
        return " ".join(["python -m trainer limit", *(["--set", *words] if words else [])])

    def _different(self) -> dict[str, Any]:
        """Return the fields of the law that differ from the default, so that a new field of the
        configuration leaves the digest as it is."""
        default = SceneConfig()
        return {k: v for k, v in vars(self.scene).items() if v != getattr(default, k)}

    def _is_of(self, scene: Mapping[str, Any]) -> bool:
        """Return whether a recorded law is this one, which may have more fields."""
        own = json.loads(json.dumps(dataclasses.asdict(self.scene)))
        return all(own.get(name) == value for name, value in scene.items())

    def _path(self, folder: Path, snr_db: float, num_sources: int) -> Path:
        return folder / self.digest / f"k{num_sources}_{snr_db:g}dB.json"


def limit_cache() -> Path:
    """Return the folder of the limits that were computed on this machine."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "ris-eigengap-search" / "limits"


def scenes_in(point: LimitByObserver) -> int:
    """Return the number of scenes that a point has."""
    return min(map(len, point.values()), default=0)


def limit_tables(name: str, config: TrainConfig) -> dict[str, Rows]:
    """Return rows of `evaluations` and of `scenes` of a limit on held-out scenes, as far as kept.

    Both are empty where nothing is kept for this law and seed.
    """
    evaluation, counts = config.evaluation, range(1, config.scene.max_sources + 1)
    kept = KeptLimits(config.scene, evaluation.test_seed)
    usable = kept.usable(name, evaluation.report_snr_db, counts, evaluation.num_test_scenes)
    tables: dict[str, Rows] = {"evaluations": [], "scenes": []}
    for (snr_db, count), error in usable.items():
        where = {"estimator": name, "snr_db": snr_db, "num_sources": count}
        interval = bootstrap_mean(error)
        tables["evaluations"].append(
            where
            | {
                "num_scenes": len(error),
                "capped_error": interval.mean,
                "capped_error_low": interval.low,
                "capped_error_high": interval.high,
            }
        )
        tables["scenes"] += [
            where | {"scene_id": i, "capped_error": float(value)} for i, value in enumerate(error)
        ]
    return tables


def snr_of_limit(config: TrainConfig) -> tuple[float, ...]:
    """Return the SNRs of the objective [dB] at which the limit *shape* is kept for all K."""
    rows = limit_tables(LIMIT_NAMES[0], config)["evaluations"]
    known = {row["snr_db"] for row in rows}
    return tuple(snr for snr in config.evaluation.objective_snr_db if snr in known)


def kept_limits(config: TrainConfig) -> dict[str, dict[str, Rows]]:
    """Return `limit_tables` of the limits that have rows, by name."""
    tables = {name: limit_tables(name, config) for name in LIMITS}
    return {name: kept for name, kept in tables.items() if kept["evaluations"]}


def how_to_know(config: TrainConfig) -> str:
    """Return a sentence on scenes without kept limits: the command that computes them, if any."""
    if config.scene.max_sources > LIMIT_SOURCES:
        return f"The limit is known for at most {LIMIT_SOURCES} sources only."
    command = KeptLimits(config.scene, config.evaluation.test_seed).command()
    return (
        f"The limit of these scenes is not kept; a run that is resumed after `{command}` has it."
    )
