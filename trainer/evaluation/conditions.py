"""Evaluation of estimators on fixed scenes, the same for all: any two compare scene by scene.

Estimators are told K; how well the data tell K is reported in columns of its own.
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
from .rows import Evaluation, EvaluationRow, summarise, summarise_bound, to_numpy

CHUNK = 128
"""Scenes evaluated at once: large enough for the hardware, small enough for memory."""

Estimator = Callable[[Scenes], Estimates]
"""A function from scenes, whose K it may use, to estimates."""


@dataclass(frozen=True)
class Conditions:
    """Scenes to evaluate on: `num_scenes` for every SNR and every K.

    Attributes:
        num_sources: values of K; by default 1 ... max_sources.
        tolerance: half-width of the capped error's 95 % interval at which a point stops before
            `num_scenes`; 0 evaluates all of them.
    """

    scene: SceneConfig
    seed: int
    snr_db: tuple[float, ...]
    num_scenes: int
    device: str = "cpu"
    num_sources: tuple[int, ...] | None = None
    tolerance: float = 0.0

    def points(self) -> list[tuple[float, int]]:
        """Return all pairs of SNR and K."""
        counts = self.num_sources or tuple(range(1, self.scene.max_sources + 1))
        return [(snr_db, count) for snr_db in self.snr_db for count in counts]

    def chunks(self) -> list[range]:
        """Return the scene numbers, in chunks of `CHUNK`."""
        starts = range(0, self.num_scenes, CHUNK)
        return [range(first, min(first + CHUNK, self.num_scenes)) for first in starts]


@functools.lru_cache(maxsize=8)
def common_scenes(conditions: Conditions, snr_db: float, num_sources: int, ids: range) -> Scenes:
    """Return the scenes of these numbers; the last few are kept, for all estimators."""
    return EvalScenes(conditions.scene, conditions.seed).batch(
        ids, snr_db=snr_db, num_sources=num_sources, device=conditions.device
    )


@functools.lru_cache(maxsize=512)
def root_crb_deg(conditions: Conditions, snr_db: float, num_sources: int, ids: range) -> Tensor:
    """Return the root of the stochastic CRB on the angle error of `common_scenes`.

    Shape [B, K_max], on the CPU [deg]; infinite where unidentifiable.
    """
    bound = stochastic_crb(common_scenes(conditions, snr_db, num_sources, ids))
    return bound.angle.sqrt().rad2deg().cpu()


def evaluate(
    estimator: Estimator, name: str, conditions: Conditions, *, bound: bool = True
) -> Evaluation:
    """Evaluate an estimator that knows K.

    Args:
        name: of the estimator, for the rows.
        bound: also report how far above the CRB its errors are, which takes time of its own.
    """
    points = []
    for snr_db, count in conditions.points():
        errors: list[Errors] = []
        numbers: dict[str, list[Tensor]] = {}
        roots: list[Tensor] = []
        origins: list[Tensor] = []
        for ids in conditions.chunks():
            scenes = common_scenes(conditions, snr_db, count, ids)
            estimates = estimator(scenes)
            errors.append(match(estimates, scenes.sources))
            for rule, found in estimates.source_numbers.items():
                numbers.setdefault(rule, []).append(found)
            if estimates.origin is not None:
                origins.append(estimates.origin)
            if bound:
                roots.append(root_crb_deg(conditions, snr_db, count, ids))
            if _is_precise(errors, conditions.tolerance):
                break
        points.append(
            summarise(
                name,
                snr_db,
                count,
                Errors.concatenate(errors),
                numbers={rule: torch.cat(parts) for rule, parts in numbers.items()},
                roots=torch.cat(roots) if roots else None,
                origins=torch.cat(origins) if origins else None,
            )
        )
    return Evaluation.of_points(points)


def evaluate_crb(conditions: Conditions) -> Evaluation:
    """Evaluate the bound like an estimator that errs by the root CRB; see `summarise_bound`.

    It always covers all scenes. An estimator's row that stopped early covers the first
    `num_scenes` of them, and its `crb_db` is taken over just those.
    """
    points = []
    for snr_db, count in conditions.points():
        roots = [root_crb_deg(conditions, snr_db, count, ids) for ids in conditions.chunks()]
        points.append(summarise_bound("crb", snr_db, count, torch.cat(roots)))
    return Evaluation.of_points(points)


def objective(rows: Iterable[EvaluationRow], snr_db: Sequence[float]) -> Interval:
    """Return the mean capped error over the rows at these SNRs; every SNR and K weighs alike.

    The rows share their scenes, so the ends are the means of their ends: full correlation is the
    worst case, and the interval never too short.

    Raises:
        ValueError: if no row is at one of these SNRs.
    """
    chosen = [row for row in rows if row.snr_db in snr_db]
    if not chosen:
        raise ValueError(
            f"an objective needs rows at its SNRs, but got none at {tuple(snr_db)}. "
            "Evaluate at these SNRs first."
        )
    return Interval(
        fmean(row.capped_error for row in chosen),
        fmean(row.capped_error_low for row in chosen),
        fmean(row.capped_error_high for row in chosen),
        n=min(row.num_scenes for row in chosen),
    )


def _is_precise(parts: list[Errors], tolerance: float) -> bool:
    """Return True if a point's interval is narrow enough to stop.

    Never for a tolerance of 0, on few scenes, or on an interval without width.
    """
    if tolerance <= 0:
        return False
    interval = normal_mean(to_numpy(torch.cat([capped_error(part) for part in parts])))
    width = interval.high - interval.low
    return interval.n >= LEAST_SCENES and 0 < width <= 2 * tolerance
