"""Markdown tables and a figure of the points that `baselines.py` measured."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np

from trainer.intervals import RESAMPLES, bootstrap_mean, wilson_share

GAUSSIAN = 0.6745
"""Median of |x| for a standard normal x."""


@dataclass(frozen=True)
class Point:
    """All estimators at one SNR and K; S scenes.

    Attributes:
        success: share of the scene's sources, by estimator, [S].
        square: mean squared angle error of the scene's sources, by estimator, [S] [deg²].
        ratio: |error| over root CRB of azimuth and elevation, by estimator, [S, K, 2].
        bound: mean squared angle bound of the scene's sources, [S] [deg²].
        number: whether a rule finds K in the LMMSE covariance's eigenvalues, by rule, [S].
        gospa: of LMMSE-MUSIC with K from the relative gap, over the true K, [S].
    """

    success: dict[str, np.ndarray]
    square: dict[str, np.ndarray]
    ratio: dict[str, np.ndarray]
    bound: np.ndarray
    number: dict[str, np.ndarray]
    gospa: np.ndarray

    def as_arrays(self) -> dict[str, np.ndarray]:
        """Return a point as flat arrays, for a file."""
        flat = {"bound": self.bound, "gospa": self.gospa}
        for group in ("success", "square", "ratio", "number"):
            flat |= {f"{group}.{name}": x for name, x in getattr(self, group).items()}
        return flat

    @classmethod
    def of_arrays(cls, flat: dict[str, np.ndarray]) -> "Point":
        """Return the point that `as_arrays` flattened."""

        def named(group: str) -> dict[str, np.ndarray]:
            return {k.partition(".")[2]: x for k, x in flat.items() if k.startswith(group + ".")}

        groups = {group: named(group) for group in ("success", "square", "ratio", "number")}
        return cls(**groups, bound=flat["bound"], gospa=flat["gospa"])


Table = dict[tuple[float, int], Point]
"""By SNR and K."""


def tables(table: Table) -> dict[str, str]:
    """Return every table by its title."""
    written = {}
    for count in sorted({count for _, count in table}):
        points = {snr: point for (snr, k), point in table.items() if k == count}
        scenes = len(next(iter(points.values())).bound)
        for title, body in (
            ("success within 5°", _success(points)),
            ("RMSE and root CRB [°]", _errors(points)),
            ("robust ratio to the root CRB", _ratios(points)),
            ("source number found in the LMMSE covariance", _numbers(points)),
        ):
            written[f"K = {count}, {scenes} scenes: {title} [95 %]"] = body
    return written


def _markdown(first: str, points: dict[float, Point], rows: dict[str, list[str]]) -> str:
    lines = [
        f"| {first} | " + " | ".join(f"{snr:g} dB" for snr in points) + " |",
        "|---" * (len(points) + 1) + "|",
    ]
    lines += [f"| {name} | " + " | ".join(cells) + " |" for name, cells in rows.items()]
    return "\n".join(lines)


def _names(points: dict[float, Point]) -> list[str]:
    return list(next(iter(points.values())).success)


def _share(hits: np.ndarray) -> str:
    share = wilson_share(float(hits.mean()), len(hits))
    return f"{share.mean:.2f} [{share.low:.2f}, {share.high:.2f}]"


def _success(points: dict[float, Point]) -> str:
    rows = {n: [_share(p.success[n]) for p in points.values()] for n in _names(points)}
    return _markdown("estimator", points, rows)


def _errors(points: dict[float, Point]) -> str:
    def cell(squares: np.ndarray) -> str:
        root, low, high = root_interval(squares)
        return f"{root:.3g} [{low:.3g}, {high:.3g}]"

    rows = {"root CRB": [_bound_cell(p.bound, cell) for p in points.values()]}
    rows |= {n: [cell(p.square[n]) for p in points.values()] for n in _names(points)}
    return _markdown("estimator", points, rows)


def _bound_cell(bound: np.ndarray, cell) -> str:
    known = bound[np.isfinite(bound)]
    if len(known) == 0:
        return "unidentifiable"
    missing = len(bound) - len(known)
    return cell(known) + (f", {missing} unidentifiable" if missing else "")


def _ratios(points: dict[float, Point]) -> str:
    rows = {n: [_ratio_cell(p.ratio[n]) for p in points.values()] for n in _names(points)}
    return _markdown("estimator", points, rows)


def _ratio_cell(ratio: np.ndarray) -> str:
    scenes = np.where(ratio > 0, ratio, np.nan).reshape(len(ratio), -1)  # 0: no finite bound
    draws = np.random.default_rng(0).integers(len(scenes), size=(RESAMPLES, len(scenes)))
    medians = [np.nanmedian(scenes[draw]) for draw in draws]
    low, high = np.quantile(medians, [0.025, 0.975]) / GAUSSIAN
    return f"{np.nanmedian(scenes) / GAUSSIAN:.2f} [{low:.2f}, {high:.2f}]"


def _numbers(points: dict[float, Point]) -> str:
    rules = list(next(iter(points.values())).number)
    rows = {rule: [_share(p.number[rule]) for p in points.values()] for rule in rules}
    gospa = [bootstrap_mean(p.gospa) for p in points.values()]
    rows["GOSPA / K, MUSIC with K from `ratio`"] = [
        f"{x.mean:.2f} [{x.low:.2f}, {x.high:.2f}]" for x in gospa
    ]
    return _markdown("rule", points, rows)


def root_interval(squares: np.ndarray) -> tuple[float, float, float]:
    """Return the root of a mean of squares and the roots of its bootstrap interval."""
    interval = bootstrap_mean(squares)
    root, low, high = np.sqrt([interval.mean, interval.low, interval.high])
    return float(root), float(low), float(high)


def plot(table: Table, path: Path) -> None:
    """Draw success and error against SNR, one column of panels per K."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    counts = sorted({count for _, count in table})
    figure, axes = plt.subplots(
        2, len(counts), figsize=(4.2 * len(counts), 7), sharex=True, sharey="row", squeeze=False
    )
    for column, count in enumerate(counts):
        upper, lower = axes[0, column], axes[1, column]
        points = {snr: point for (snr, k), point in table.items() if k == count}
        snrs = list(points)
        for name in _names(points):
            hits = [p.success[name] for p in points.values()]
            shares = [wilson_share(float(h.mean()), len(h)) for h in hits]
            upper.plot(snrs, [s.mean for s in shares], marker=".", label=name)
            upper.fill_between(snrs, [s.low for s in shares], [s.high for s in shares], alpha=0.15)
            roots = [root_interval(p.square[name]) for p in points.values()]
            lower.plot(snrs, [r[0] for r in roots], marker=".", label=name)
            lower.fill_between(snrs, [r[1] for r in roots], [r[2] for r in roots], alpha=0.15)
        known = [p.bound[np.isfinite(p.bound)] for p in points.values()]
        bounds = [np.sqrt(b.mean()) if len(b) else np.nan for b in known]
        lower.plot(snrs, bounds, "k--", label="root CRB")
        upper.set_title(f"K = {count}, {len(next(iter(points.values())).bound)} scenes")
        lower.set_yscale("log")
        lower.set_xlabel("SNR [dB]")
        for axis in (upper, lower):
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("success within 5 deg")
    axes[1, 0].set_ylabel("RMS angle error [deg]")
    axes[1, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)
