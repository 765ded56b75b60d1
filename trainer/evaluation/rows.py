"""Results as plain rows, one per estimator, SNR and K, and the errors per scene behind them.

Every number is finite, or None where there is none to give. The bound is given in the same terms
as an estimator's errors: capped, divided and averaged alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainer.estimation import ORIGINS
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

OWN_RULES = ("evidence", "ratio")
"""Rules for K that a method may go by itself, the one that it prefers first."""


@dataclass(frozen=True)
class EvaluationRow:
    """One estimator at one SNR and K.

    Attributes:
        capped_error, ..._low, ..._high: mean(min(angle error, 10 deg)) / 10 deg, 95 % bootstrap.
        rmspe_deg, median_error_deg: of the angle error, uncapped.
        success_rate, ..._low, ..._high: share within 5 deg and 5 deg, 95 % Wilson.
        success_rate_3d: within 1 m of range too.
        source_number_accuracy: share of scenes whose K the method's own rule tells: the evidence
            of the snapshots, or the widest relative eigengap of its covariance (`OWN_RULES`);
            ..._gap, ..._mdl, ..._aic: by the widest absolute gap, and by the information criteria.
        crb_db: root mean square error above the root CRB, 20 log10, both capped at 10 deg before
            squaring, so that no single near-singular scene decides it; over sources whose
            coordinates are identifiable.
        scored_share, searched_share: scenes whose places Fisher scoring, and another search of
            the likelihood, moved (`estimation.judge_by_likelihood`); None if nothing judged.
    """

    estimator: str
    snr_db: float
    num_sources: int
    num_scenes: int
    capped_error: float
    capped_error_low: float
    capped_error_high: float
    rmspe_deg: float | None = None
    median_error_deg: float | None = None
    success_rate: float | None = None
    success_rate_low: float | None = None
    success_rate_high: float | None = None
    success_rate_3d: float | None = None
    source_number_accuracy: float | None = None
    source_number_accuracy_gap: float | None = None
    source_number_accuracy_mdl: float | None = None
    source_number_accuracy_aic: float | None = None
    crb_db: float | None = None
    scored_share: float | None = None
    searched_share: float | None = None


@dataclass(frozen=True)
class ErrorsPerScene:
    """Errors of one estimator per scene, in the order evaluated, [S] each; they pair estimators.

    `source_number` is K by the method's own rule, and `source_number_found` 1 where that is right,
    else 0; None if it has none.
    """

    estimator: str
    scene_id: NDArray[np.int64]
    snr_db: NDArray[np.float64]
    num_sources: NDArray[np.int64]
    capped_error: NDArray[np.float64]
    success: NDArray[np.float64] | None
    source_number_found: NDArray[np.float64] | None = None
    source_number: NDArray[np.int64] | None = None

    def rows(self) -> list[dict[str, Any]]:
        """Return one plain dictionary per scene."""
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "estimator"}
        count = len(self.scene_id)
        lists = {k: [None] * count if v is None else v.tolist() for k, v in columns.items()}
        return [
            {"estimator": self.estimator} | dict(zip(lists, values, strict=True))
            for values in zip(*lists.values(), strict=True)
        ]

    @classmethod
    def concatenate(cls, parts: "list[Self]") -> Self:
        """Return the scenes of several points of one estimator, in this order."""
        columns: dict[str, Any] = {}
        for name in [f.name for f in fields(cls) if f.name != "estimator"]:
            arrays = [getattr(part, name) for part in parts if getattr(part, name) is not None]
            columns[name] = np.concatenate(arrays) if arrays else None
        return cls(parts[0].estimator, **columns)

    def means(self) -> tuple[float, ...]:
        """Return the capped error by scene number, mean over SNRs and K: with equal conditions,
        estimators pair by it."""
        _, scene = np.unique(self.scene_id, return_inverse=True)
        return tuple((np.bincount(scene, self.capped_error) / np.bincount(scene)).tolist())


RowAndErrors = tuple[EvaluationRow, ErrorsPerScene]
"""One estimator's results at one SNR and K."""


@dataclass(frozen=True)
class Evaluation:
    """Rows of one estimator, and the errors per scene behind them."""

    rows: tuple[EvaluationRow, ...]
    scenes: ErrorsPerScene

    @classmethod
    def of_points(cls, points: list[RowAndErrors]) -> Self:
        """Join all points of one estimator."""
        rows, scenes = zip(*points, strict=True)
        return cls(rows, ErrorsPerScene.concatenate(list(scenes)))


def summarise(
    name: str,
    snr_db: float,
    count: int,
    errors: Errors,
    *,
    numbers: Mapping[str, Tensor],
    roots: Tensor | None = None,
    origins: Tensor | None = None,
) -> RowAndErrors:
    """Summarise one estimator's errors at one point.

    Args:
        numbers: source numbers that its data suggest, by rule, [B] each.
        roots: root CRB on the angle error of the same sources, [B, K_max] [deg].
        origins: of judged estimates (`Estimates.origin`), [B].
    """
    hits = to_numpy(success(errors))
    said = {rule: number.cpu().numpy() for rule, number in numbers.items()}
    own = next((said[rule] for rule in OWN_RULES if rule in said), None)
    known: dict[str, Any] = {
        f"source_number_accuracy_{rule}": float((said[rule] == count).mean())
        for rule in ("gap", "mdl", "aic")
        if rule in said
    }
    if own is not None:
        known["source_number_accuracy"] = float((own == count).mean())
    if count:
        share = wilson_share(float(hits.mean()), len(hits))
        known |= {
            "rmspe_deg": rmspe_deg(errors),
            "median_error_deg": median_error_deg(errors),
            "success_rate": share.mean,
            "success_rate_low": share.low,
            "success_rate_high": share.high,
            "success_rate_3d": float(success_3d(errors).mean()),
            "crb_db": None if roots is None else _above_bound_db(errors, roots),
        }
    if origins is not None:
        shares = (float((origins == ORIGINS.index(o)).double().mean()) for o in ORIGINS[1:])
        known["scored_share"], known["searched_share"] = shares
    capped = to_numpy(capped_error(errors))
    return _point(name, snr_db, count, capped, known, hits, own)


def summarise_bound(name: str, snr_db: float, count: int, roots: Tensor) -> RowAndErrors:
    """Summarise the bound at one point: every source errs by its root CRB [B, K_max], or the cap.

    A bound has no success rate; RMSPE and median are None where a scene is unidentifiable.
    """
    active = torch.arange(roots.shape[-1], device=roots.device).expand_as(roots) < count
    errors = roots[active]
    known: dict[str, Any] = {}
    if count and bool(torch.isfinite(errors).all()):
        known = {
            "rmspe_deg": float(errors.square().mean().sqrt()),
            "median_error_deg": float(errors.quantile(0.5)),
            "crb_db": 0.0,
        }
    capped = to_numpy(mean_over_sources(roots.clamp(max=CAP_DEG) / CAP_DEG, active))
    return _point(name, snr_db, count, capped, known)


def table_lines(rows: Sequence[EvaluationRow]) -> list[str]:
    """Format rows as a table for a console, with a blank where there is no number."""

    def number(value: float | None, digits: int = 2) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    head = f"{'estimator':<17} {'SNR/dB':>6} {'K':>2} {'scenes':>6} {'capped error [95 %]':>22}"
    head += (
        f" {'success':>7} {'3-D':>5} {'RMSPE/°':>8} {'dB>CRB':>6}  K by own rule, gap, MDL, AIC"
    )
    lines = [head]
    for row in rows:
        interval = f"{row.capped_error_low:.3f}, {row.capped_error_high:.3f}"
        accuracies = (
            row.source_number_accuracy,
            row.source_number_accuracy_gap,
            row.source_number_accuracy_mdl,
            row.source_number_accuracy_aic,
        )
        lines.append(
            f"{row.estimator:<17} {row.snr_db:>6g} {row.num_sources:>2} {row.num_scenes:>6} "
            f"{row.capped_error:>6.3f} [{interval}] {number(row.success_rate):>7} "
            f"{number(row.success_rate_3d):>5} {number(row.rmspe_deg):>8} "
            f"{number(row.crb_db, 1):>6}  {'  '.join(map(number, accuracies))}".rstrip()
        )
    judged = [row for row in rows if row.searched_share is not None]
    if judged:
        lines += ["", "judged by the likelihood: share of scenes kept, scored, searched again"]
    for row in judged:
        scored, searched = row.scored_share or 0.0, row.searched_share or 0.0
        lines.append(
            f"{row.estimator:<17} {row.snr_db:>6g} {row.num_sources:>2} "
            f"{1 - scored - searched:>6.2f} {scored:.2f} {searched:.2f}"
        )
    return lines


def confusion_lines(scenes: Iterable[ErrorsPerScene]) -> list[str]:
    """Format which K each estimator's own rule says, per SNR and true K, for a console."""
    asked = [(each, each.source_number) for each in scenes if each.source_number is not None]
    if not asked:
        return []
    most = max(int(said.max()) for _, said in asked)
    head = f"{'K that its own rule says':<24} {'SNR/dB':>6} {'K':>2} {'scenes':>6}"
    lines = [head + "".join(f" {f'said {k}':>6}" for k in range(most + 1))]
    for each, said in asked:
        for snr_db, count in sorted(set(zip(each.snr_db, each.num_sources, strict=True))):
            at = (each.snr_db == snr_db) & (each.num_sources == count)
            shares = np.bincount(said[at], minlength=most + 1) / at.sum()
            cells = "".join(f" {share:>6.2f}" for share in shares)
            lines.append(f"{each.estimator:<24} {snr_db:>6g} {count:>2} {at.sum():>6}{cells}")
    return lines


def to_numpy(values: Tensor) -> NDArray[np.float64]:
    """Return float64 on the CPU, without gradient."""
    array: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return array


def _point(
    name: str,
    snr_db: float,
    count: int,
    capped: NDArray[np.float64],
    known: Mapping[str, Any],
    success: NDArray[np.float64] | None = None,
    own: NDArray[np.int64] | None = None,
) -> RowAndErrors:
    size, interval = len(capped), bootstrap_mean(capped)
    ends = (interval.mean, interval.low, interval.high)
    row = EvaluationRow(name, snr_db, count, size, *ends, **known)
    scenes = ErrorsPerScene(
        estimator=name,
        scene_id=np.arange(size),
        snr_db=np.full(size, snr_db),
        num_sources=np.full(size, count),
        capped_error=capped,
        success=success,
        source_number_found=None if own is None else (own == count).astype(np.float64),
        source_number=own,
    )
    return row, scenes


def _above_bound_db(errors: Errors, root: Tensor) -> float | None:
    root = root.to(errors.active.device)
    known = errors.active & torch.isfinite(root)
    if not bool(known.any()):
        return None
    error = errors.angle_deg.double()[known].clamp(max=CAP_DEG).square().mean()
    least = root.double()[known].clamp(max=CAP_DEG).square().mean()
    return float(10 * (error / least).log10()) if error > 0 else None
