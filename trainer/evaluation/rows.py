"""Results as plain rows, one per estimator, SNR and K, and the errors per scene behind them.

Every number is finite, or None where there is none to give. The bound is given in the same terms
as an estimator's errors: capped, divided and averaged alike.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.intervals import bootstrap_mean, wilson_share

from .metrics import (
    CAP_DEG,
    Errors,
    capped_error,
    mean_over_sources,
    median_error_deg,
    rmspe_deg,
    success,
    success_3d,
)


@dataclass(frozen=True)
class EvaluationRow:
    """One estimator at one SNR and K. Every number is finite, or None where there is none.

    Attributes:
        estimator, snr_db, num_sources, num_scenes: what was scored on what.
        capped_error, ..._low, ..._high: mean(min(angle error, 10 deg)) / 10 deg, 95 % bootstrap.
        rmspe_deg, median_error_deg: of the angle error, uncapped.
        success_rate, ..._low, ..._high: share within 5 deg and 5 deg, 95 % Wilson.
        success_rate_3d: within 1 m of range too.
        source_number_accuracy: share of scenes whose K the widest relative eigengap of the same
            covariance tells.
        source_number_accuracy_gap, ..._mdl, ..._aic: by the widest absolute gap, and by the
            information criteria.
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
    source_number_accuracy_gap: float | None
    source_number_accuracy_mdl: float | None
    source_number_accuracy_aic: float | None
    crb_db: float | None


@dataclass(frozen=True)
class ErrorsPerScene:
    """One entry per scene, in the order scored; what pairs two estimators, [S] each.

    `source_number_found` is 1 where the data told K, else 0; None if nobody asked.
    """

    estimator: str
    scene_id: NDArray[np.int64]
    snr_db: NDArray[np.float64]
    num_sources: NDArray[np.int64]
    capped_error: NDArray[np.float64]
    success: NDArray[np.float64] | None
    source_number_found: NDArray[np.float64] | None = None

    def rows(self) -> list[dict[str, Any]]:
        """The same as one plain dictionary per scene."""
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "estimator"}
        count = len(self.scene_id)
        lists = {k: [None] * count if v is None else v.tolist() for k, v in columns.items()}
        return [
            {"estimator": self.estimator} | dict(zip(lists, values, strict=True))
            for values in zip(*lists.values(), strict=True)
        ]

    @classmethod
    def concatenate(cls, parts: "list[Self]") -> Self:
        """The scenes of several points of one estimator, in this order."""
        hits = [part.success for part in parts if part.success is not None]
        found = [p.source_number_found for p in parts if p.source_number_found is not None]
        return cls(
            estimator=parts[0].estimator,
            scene_id=np.concatenate([part.scene_id for part in parts]),
            snr_db=np.concatenate([part.snr_db for part in parts]),
            num_sources=np.concatenate([part.num_sources for part in parts]),
            capped_error=np.concatenate([part.capped_error for part in parts]),
            success=np.concatenate(hits) if hits else None,
            source_number_found=np.concatenate(found) if found else None,
        )


@dataclass(frozen=True)
class Evaluation:
    """Rows of one estimator, and the errors per scene behind them."""

    rows: tuple[EvaluationRow, ...]
    scenes: ErrorsPerScene

    @classmethod
    def of_points(cls, points: "list[tuple[EvaluationRow, ErrorsPerScene]]") -> Self:
        """All points of one estimator."""
        return cls(
            tuple(row for row, _ in points),
            ErrorsPerScene.concatenate([part for _, part in points]),
        )


def summarise(
    name: str,
    snr_db: float,
    count: int,
    errors: Errors,
    *,
    numbers: Mapping[str, Tensor] | None = None,
    roots: Tensor | None = None,
) -> tuple[EvaluationRow, ErrorsPerScene]:
    """One estimator's row at one point, and its scenes.

    Args:
        numbers: the source numbers its data suggested, by rule, [B] each.
        roots: root CRB on the angle error of the same sources, [B, K_max] [deg].
    """
    capped, hits = to_numpy(capped_error(errors)), to_numpy(success(errors))
    interval = bootstrap_mean(capped)
    share = wilson_share(float(hits.mean()), len(hits)) if count else None
    told = {rule: to_numpy(n == count) for rule, n in (numbers or {}).items()}
    shares = {rule: float(right.mean()) for rule, right in told.items()}
    row = EvaluationRow(
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
        source_number_accuracy=shares.get("ratio"),
        source_number_accuracy_gap=shares.get("gap"),
        source_number_accuracy_mdl=shares.get("mdl"),
        source_number_accuracy_aic=shares.get("aic"),
        crb_db=None if roots is None else _above_bound_db(errors, roots),
    )
    return row, _scenes(name, snr_db, count, capped, hits, told.get("ratio"))


def summarise_bound(
    name: str, snr_db: float, count: int, roots: Tensor
) -> tuple[EvaluationRow, ErrorsPerScene]:
    """The bound's row at one point: every source errs by its root CRB [B, K_max], or the cap.

    A bound has no success rate; RMSPE and median are None where a scene is unidentifiable.
    """
    active = torch.arange(roots.shape[-1], device=roots.device).expand_as(roots) < count
    capped = to_numpy(mean_over_sources(roots.clamp(max=CAP_DEG) / CAP_DEG, active))
    interval = bootstrap_mean(capped)
    known = roots[active]
    finite = count > 0 and bool(torch.isfinite(known).all())
    row = EvaluationRow(
        estimator=name,
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
        source_number_accuracy_gap=None,
        source_number_accuracy_mdl=None,
        source_number_accuracy_aic=None,
        crb_db=0.0 if finite else None,
    )
    return row, _scenes(name, snr_db, count, capped, None)


def table_lines(rows: Sequence[EvaluationRow]) -> list[str]:
    """Rows as a table for a console, a blank where there is no number."""

    def share(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    head = f"{'estimator':<17} {'SNR/dB':>6} {'K':>2} {'scenes':>6} {'capped error [95 %]':>22}"
    head += f" {'success':>7} {'3-D':>5} {'RMSPE/°':>8} {'dB>CRB':>6}  K by ratio, gap, MDL, AIC"
    lines = [head]
    for row in rows:
        interval = f"{row.capped_error_low:.3f}, {row.capped_error_high:.3f}"
        told = (
            row.source_number_accuracy,
            row.source_number_accuracy_gap,
            row.source_number_accuracy_mdl,
            row.source_number_accuracy_aic,
        )
        lines.append(
            f"{row.estimator:<17} {row.snr_db:>6g} {row.num_sources:>2} {row.num_scenes:>6} "
            f"{row.capped_error:>6.3f} [{interval}] {share(row.success_rate):>7} "
            f"{share(row.success_rate_3d):>5} {share(row.rmspe_deg):>8} "
            f"{share(row.crb_db, 1):>6}  {'  '.join(share(x) for x in told)}".rstrip()
        )
    return lines


def to_numpy(values: Tensor) -> NDArray[np.float64]:
    """Float64 on the CPU, without gradient."""
    array: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return array


def _scenes(
    name: str,
    snr_db: float,
    count: int,
    capped: NDArray[np.float64],
    hits: NDArray[np.float64] | None,
    found: NDArray[np.float64] | None = None,
) -> ErrorsPerScene:
    size = len(capped)
    return ErrorsPerScene(
        estimator=name,
        scene_id=np.arange(size),
        snr_db=np.full(size, snr_db),
        num_sources=np.full(size, count),
        capped_error=capped,
        success=hits,
        source_number_found=found,
    )


def _above_bound_db(errors: Errors, root: Tensor) -> float | None:
    root = root.to(errors.active.device)
    known = errors.active & torch.isfinite(root)
    if not bool(known.any()):
        return None
    error = errors.angle_deg.double()[known].clamp(max=CAP_DEG).square().mean()
    least = root.double()[known].clamp(max=CAP_DEG).square().mean()
    return float(10 * (error / least).log10()) if error > 0 else None
