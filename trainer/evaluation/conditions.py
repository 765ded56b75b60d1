"""Scores of estimators on fixed scenes, the same for all, so that any two compare scene by scene.

K is known to the estimators; how well it could have been told is a column of its own.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor

from trainer.config import SceneConfig
from trainer.estimation import Estimates
from trainer.intervals import LEAST_SCENES, Interval, normal_mean
from trainer.scenes import EvalScenes, Scenes

from .crb import stochastic_crb
from .metrics import Errors, capped_error, match
from .rows import ErrorsPerScene, Evaluation, EvaluationRow, summarise, summarise_bound, to_numpy

__all__ = [
    "Conditions",
    "ErrorsPerScene",
    "Estimator",
    "Evaluation",
    "EvaluationRow",
    "common_scenes",
    "evaluate",
    "evaluate_crb",
    "objective",
    "root_crb_deg",
]

CHUNK = 128
"""Scenes scored at once: large enough for the hardware, small enough for memory."""

Estimator = Callable[[Scenes], Estimates]


@dataclass(frozen=True)
class Conditions:
    """On which scenes: `num_scenes` for every SNR and every K in 1 ... max_sources.

    Attributes:
        tolerance: half-width of the capped error's 95 % interval at which a point stops before
            `num_scenes`; 0 scores them all.
    """

    scene: SceneConfig
    seed: int
    snr_db: tuple[float, ...]
    num_scenes: int
    device: str = "cpu"
    num_sources: tuple[int, ...] | None = None
    tolerance: float = 0.0

    def points(self) -> list[tuple[float, int]]:
        """All pairs of SNR and K."""
        counts = self.num_sources or tuple(range(1, self.scene.max_sources + 1))
        return [(snr_db, count) for snr_db in self.snr_db for count in counts]


@functools.lru_cache(maxsize=8)
def common_scenes(
    scene: SceneConfig, seed: int, snr_db: float, count: int, ids: range, device: str
) -> Scenes:
    """Scenes of these numbers with K = `count`; kept while they are in use."""
    return EvalScenes(scene, seed).batch(ids, snr_db=snr_db, num_sources=count, device=device)


@functools.lru_cache(maxsize=512)
def root_crb_deg(
    scene: SceneConfig, seed: int, snr_db: float, count: int, ids: range, device: str
) -> Tensor:
    """Root of the stochastic CRB on the angle error of the same scenes, [B, K_max] on the CPU
    [deg]; infinite where unidentifiable."""
    bound = stochastic_crb(common_scenes(scene, seed, snr_db, count, ids, device))
    return bound.angle.sqrt().rad2deg().cpu()


def evaluate(
    estimate: Estimator, name: str, conditions: Conditions, *, bound: bool = True
) -> Evaluation:
    """Scores an estimator that knows K.

    Args:
        estimate: scenes -> estimates.
        name: of the estimator, for the rows.
        bound: whether rows say how far above the CRB they are; it costs time of its own.
    """
    points = []
    for snr_db, count in conditions.points():
        errors: list[Errors] = []
        numbers: dict[str, list[Tensor]] = {}
        roots: list[Tensor] = []
        for ids in _chunks(conditions.num_scenes):
            key = (conditions.scene, conditions.seed, snr_db, count, ids, conditions.device)
            scenes = common_scenes(*key)
            estimates = estimate(scenes)
            errors.append(match(estimates, scenes.sources))
            for rule, told in estimates.source_numbers.items():
                numbers.setdefault(rule, []).append(told)
            if bound:
                roots.append(root_crb_deg(*key))
            if _tight(errors, conditions.tolerance):
                break
        points.append(
            summarise(
                name,
                snr_db,
                count,
                Errors.concatenate(errors),
                numbers={rule: torch.cat(parts) for rule, parts in numbers.items()},
                roots=torch.cat(roots) if roots else None,
            )
        )
    return Evaluation.of_points(points)


def evaluate_crb(conditions: Conditions) -> Evaluation:
    """Scores the bound like an estimator that errs by the root CRB; see `summarise_bound`.

    Always over all scenes; an estimator's row that stopped early covers the first `num_scenes` of
    them, and its `crb_db` is taken over just those.
    """
    points = []
    for snr_db, count in conditions.points():
        place = conditions.scene, conditions.seed, snr_db, count
        chunks = _chunks(conditions.num_scenes)
        roots = [root_crb_deg(*place, ids, conditions.device) for ids in chunks]
        points.append(summarise_bound("crb", snr_db, count, torch.cat(roots)))
    return Evaluation.of_points(points)


def objective(rows: Iterable[EvaluationRow], snr_db: Sequence[float]) -> Interval:
    """Mean capped error over the rows at these SNRs, every SNR and K weighing alike.

    The rows share their scenes, so the ends are the means of their ends: full correlation is the
    worst case, and the interval never too short.

    Raises:
        ValueError: if no row is at one of these SNRs.
    """
    chosen = [row for row in rows if row.snr_db in snr_db]
    if not chosen:
        raise ValueError(
            f"an objective needs rows at its SNRs, but got none at {tuple(snr_db)}. "
            "Score at these SNRs first."
        )
    return Interval(
        fmean(row.capped_error for row in chosen),
        fmean(row.capped_error_low for row in chosen),
        fmean(row.capped_error_high for row in chosen),
        n=min(row.num_scenes for row in chosen),
    )


def _chunks(count: int) -> list[range]:
    return [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]


def _tight(parts: list[Errors], tolerance: float) -> bool:
    """Whether a point's interval is narrow enough to stop; never for a tolerance of 0, nor on few
    scenes, nor on an interval without width."""
    if tolerance <= 0:
        return False
    interval = normal_mean(to_numpy(torch.cat([capped_error(part) for part in parts])))
    if interval.n < LEAST_SCENES or interval.high == interval.low:
        return False
    return interval.high - interval.low <= 2 * tolerance
