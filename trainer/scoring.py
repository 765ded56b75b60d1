"""Scores of estimators on fixed scenes: one row per estimator, SNR and K, and errors per scene.

Every estimator sees the same `EvalScenes`, so any two can be compared scene by scene. K is known
to the estimators; how well it could have been told is a column of its own. The bound is scored
like an estimator whose error is the root of its CRB: capped, divided and averaged alike.
"""

import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .config import SceneConfig
from .crb import stochastic_crb
from .estimates import Estimates
from .intervals import bootstrap_mean, normal_mean, wilson_share
from .metrics import (
    CAP_DEG,
    Errors,
    capped_error,
    match,
    mean_over_sources,
    median_error_deg,
    rmspe_deg,
    success,
    success_3d,
)
from .scene import EvalScenes, Scenes

CHUNK = 128
"""Scenes scored at once: large enough for the hardware, small enough for memory."""

Estimate = Callable[[Scenes], Estimates]


@dataclass(frozen=True)
class EvaluationRow:
    """One estimator at one SNR and K. Every number is finite, or None where there is none.

    Attributes:
        estimator, snr_db, num_sources, num_scenes: what was scored on what.
        capped_error, ..._low, ..._high: mean(min(angle error, 10 deg)) / 10 deg, 95 % bootstrap.
        rmspe_deg, median_error_deg: of the angle error, uncapped.
        success_rate, ..._low, ..._high: share within 5 deg and 5 deg, 95 % Wilson.
        success_rate_3d: within 1 m of range too.
        source_number_accuracy: share of scenes whose K the same data told.
        crb_db: root mean square error above the root CRB, 20 log10, both capped at 10 deg before
            squaring, so that no single near-singular scene decides it; over sources whose
            coordinates are identifiable.
    """

    estimator: str
    snr_db: float
    num_sources: int
    num_scenes: int
    capped_error: float
    capped_error_low: float
    capped_error_high: float
    rmspe_deg: float | None
    median_error_deg: float | None
    success_rate: float | None
    success_rate_low: float | None
    success_rate_high: float | None
    success_rate_3d: float | None
    source_number_accuracy: float | None
    crb_db: float | None


@dataclass(frozen=True)
class SceneErrors:
    """One entry per scene, in the order scored; what pairs two estimators, [S] each."""

    estimator: str
    scene_id: NDArray[np.int64]
    snr_db: NDArray[np.float64]
    num_sources: NDArray[np.int64]
    capped_error: NDArray[np.float64]
    success: NDArray[np.float64] | None

    def rows(self) -> list[dict[str, Any]]:
        """The same as one plain dictionary per scene."""
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "estimator"}
        count = len(self.scene_id)
        lists = {k: [None] * count if v is None else v.tolist() for k, v in columns.items()}
        return [
            {"estimator": self.estimator} | dict(zip(lists, values, strict=True))
            for values in zip(*lists.values(), strict=True)
        ]


@dataclass(frozen=True)
class Scored:
    """Rows of one estimator, and the errors per scene behind them."""

    rows: tuple[EvaluationRow, ...]
    scenes: SceneErrors


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


def score(estimate: Estimate, name: str, conditions: Conditions, *, bound: bool = True) -> Scored:
    """Scores an estimator that knows K.

    Args:
        estimate: scenes -> estimates.
        name: of the estimator, for the rows.
        bound: whether rows say how far above the CRB they are; it costs time of its own.
    """
    rows, parts = [], []
    for snr_db, count in conditions.points():
        chunks: list[tuple[Errors, Tensor | None]] = []
        roots = []
        for ids in _chunks(conditions.num_scenes):
            key = (conditions.scene, conditions.seed, snr_db, count, ids, conditions.device)
            scenes = common_scenes(*key)
            estimates = estimate(scenes)
            number = estimates.source_number
            chunks.append((match(estimates, scenes.sources), number))
            if bound:
                roots.append(root_crb_deg(*key))
            if _tight([capped_error(e) for e, _ in chunks], conditions.tolerance):
                break
        errors = Errors.concatenate([e for e, _ in chunks])
        numbers = [n for _, n in chunks if n is not None]
        accuracy = float((torch.cat(numbers) == count).double().mean()) if numbers else None
        crb_db = _above_bound_db(errors, torch.cat(roots)) if bound else None
        capped, hits = _numpy(capped_error(errors)), _numpy(success(errors))
        interval = bootstrap_mean(capped)
        share = wilson_share(float(hits.mean()), len(hits)) if count else None
        rows.append(
            EvaluationRow(
                estimator=name,
                snr_db=snr_db,
                num_sources=count,
                num_scenes=len(capped),
                capped_error=interval.mean,
                capped_error_low=interval.low,
                capped_error_high=interval.high,
                rmspe_deg=rmspe_deg(errors) if count else None,
                median_error_deg=median_error_deg(errors) if count else None,
                success_rate=share.mean if share else None,
                success_rate_low=share.low if share else None,
                success_rate_high=share.high if share else None,
                success_rate_3d=float(success_3d(errors).mean()) if count else None,
                source_number_accuracy=accuracy,
                crb_db=crb_db,
            )
        )
        parts.append(_Part(snr_db, count, capped, hits))
    return Scored(tuple(rows), _scene_errors(name, parts))


def score_crb(conditions: Conditions) -> Scored:
    """Scores the bound: the error of every source is its root CRB; where there is none, the cap.

    A bound has no success rate; its RMSPE and median are None where a scene is unidentifiable.
    """
    rows, parts = [], []
    for snr_db, count in conditions.points():
        chunks = _chunks(conditions.num_scenes)
        place = (conditions.scene, conditions.seed, snr_db, count)
        root = torch.cat([root_crb_deg(*place, ids, conditions.device) for ids in chunks])
        active = torch.arange(root.shape[-1]).expand_as(root) < count
        capped = _numpy(mean_over_sources(root.clamp(max=CAP_DEG) / CAP_DEG, active))
        interval = bootstrap_mean(capped)
        known = root[active]
        finite = bool(torch.isfinite(known).all()) and count > 0
        rows.append(
            EvaluationRow(
                estimator="crb",
                snr_db=snr_db,
                num_sources=count,
                num_scenes=len(capped),
                capped_error=interval.mean,
                capped_error_low=interval.low,
                capped_error_high=interval.high,
                rmspe_deg=float(known.square().mean().sqrt()) if finite else None,
                median_error_deg=float(known.quantile(0.5)) if finite else None,
                success_rate=None,
                success_rate_low=None,
                success_rate_high=None,
                success_rate_3d=None,
                source_number_accuracy=None,
                crb_db=0.0 if finite else None,
            )
        )
        parts.append(_Part(snr_db, count, capped, None))
    return Scored(tuple(rows), _scene_errors("crb", parts))


def objective(rows: Iterable[EvaluationRow], snr_db: Sequence[float]) -> float:
    """Mean capped error over the rows at these SNRs, every SNR and K weighing alike.

    Raises:
        ValueError: if no row is at one of these SNRs.
    """
    chosen = [row.capped_error for row in rows if row.snr_db in snr_db]
    if not chosen:
        raise ValueError(
            f"an objective needs rows at its SNRs, but got none at {tuple(snr_db)}. "
            "Score at these SNRs first."
        )
    return math.fsum(chosen) / len(chosen)


def _chunks(count: int) -> list[range]:
    return [range(first, min(first + CHUNK, count)) for first in range(0, count, CHUNK)]


def _tight(parts: list[Tensor], tolerance: float) -> bool:
    """Whether a point's interval is narrow enough to stop; never for a tolerance of 0."""
    if tolerance <= 0:
        return False
    interval = normal_mean(_numpy(torch.cat(parts)))
    return interval.high - interval.low <= 2 * tolerance


def _above_bound_db(errors: Errors, root: Tensor) -> float | None:
    root = root.to(errors.active.device)
    known = errors.active & torch.isfinite(root)
    if not bool(known.any()):
        return None
    error = errors.angle_deg.double()[known].clamp(max=CAP_DEG).square().mean()
    least = root.double()[known].clamp(max=CAP_DEG).square().mean()
    return float(10 * (error / least).log10()) if error > 0 else None


class _Part(NamedTuple):
    snr_db: float
    num_sources: int
    capped_error: NDArray[np.float64]
    success: NDArray[np.float64] | None


def _scene_errors(name: str, parts: list[_Part]) -> SceneErrors:
    sizes = [len(part.capped_error) for part in parts]
    hits = [part.success for part in parts if part.success is not None]
    return SceneErrors(
        estimator=name,
        scene_id=np.concatenate([np.arange(size) for size in sizes]),
        snr_db=np.repeat([part.snr_db for part in parts], sizes),
        num_sources=np.repeat([part.num_sources for part in parts], sizes),
        capped_error=np.concatenate([part.capped_error for part in parts]),
        success=np.concatenate(hits) if hits else None,
    )


def _numpy(values: Tensor) -> NDArray[np.float64]:
    array: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return array
