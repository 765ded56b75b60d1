"""Classical estimators next to the Cramér-Rao bound: success and error against SNR.

    python benchmarks/baselines.py --scene full [--num-scenes 200] [--sources 1 2 3] [--plot PNG]

All estimators see the same scenes and know K. Success: azimuth and elevation within 5 deg, 95 %
Wilson interval over scenes. Error: root mean square of sqrt(d_azimuth² + d_elevation²), 95 %
bootstrap over scenes, next to the root of the mean stochastic CRB of the same scenes. The robust
ratio is median(|azimuth error| / root CRB) / .6745 over sources: 1 for an efficient estimator
with Gaussian errors, and blind to the outliers that make a threshold.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import torch

from spaces.presets import FULL_SCENE, LOCAL_SCENE
from trainer.config import SceneConfig, TrainConfig
from trainer.crb import stochastic_crb
from trainer.evaluation import classical
from trainer.intervals import bootstrap_mean, wilson_share
from trainer.metrics import Errors, match, mean_over_sources, success
from trainer.scene import EvalScenes

SCENES = {"full": FULL_SCENE, "local": LOCAL_SCENE}
ESTIMATORS = {
    "full": ("pinv_music", "lmmse_music", "lmmse_mvdr", "lmmse_beamformer", "sml"),
    "local": (
        "pinv_music",
        "lmmse_music",
        "lmmse_mvdr",
        "lmmse_beamformer",
        "sparse_music",
        "sml",
    ),
}
"""Sparse fitting of a 12x12 panel takes seconds per scene on a CPU: name it to have it."""
CHUNK = 50
SEED = 3_000_017


@dataclass(frozen=True)
class Point:
    """One estimator at one SNR and K; [S] per scene, [S, K] per source.

    Attributes:
        success: share of the scene's sources.
        square_deg: mean squared angle error of the scene's sources [deg²].
        ratio: |azimuth error| over its root CRB.
    """

    success: np.ndarray
    square_deg: np.ndarray
    ratio: np.ndarray


def measure(
    config: SceneConfig, names: list[str], snr_db: float, count: int, scenes: int, device: str
) -> tuple[dict[str, Point], np.ndarray]:
    """Every estimator on the same scenes; and the scenes' mean squared angle bound [deg²]."""
    estimates = {name: classical(name, config, device) for name in names}
    errors: dict[str, list[Errors]] = {name: [] for name in names}
    bounds, azimuths = [], []
    for first in range(0, scenes, CHUNK):
        ids = range(first, min(first + CHUNK, scenes))
        batch = EvalScenes(config, SEED).batch(
            ids, snr_db=snr_db, num_sources=count, device=device
        )
        bound = stochastic_crb(batch)
        active = batch.sources.active
        square = bound.angle.where(active, 0.0).rad2deg().rad2deg()
        bounds.append(mean_over_sources(square, active))
        azimuths.append(bound.azimuth[:, :count].sqrt().rad2deg())
        for name, estimate in estimates.items():
            errors[name].append(match(estimate(batch), batch.sources))
    root = torch.cat(azimuths)
    points = {}
    for name, parts in errors.items():
        joined = Errors.concatenate(parts)
        square = mean_over_sources(joined.angle_deg.double().square(), joined.active)
        ratio = joined.azimuth_deg[:, :count].abs() / root
        points[name] = Point(*(x.cpu().numpy() for x in (success(joined), square, ratio)))
    return points, torch.cat(bounds).cpu().numpy()


def root_interval(squares: np.ndarray) -> tuple[float, float, float]:
    """Root of a mean of squares and the roots of its bootstrap interval."""
    interval = bootstrap_mean(squares)
    return tuple(float(np.sqrt(max(x, 0))) for x in (interval.mean, interval.low, interval.high))


def success_table(table: dict, names: list[str], snrs: list[float], count: int) -> None:
    """Prints one K: estimators down, SNRs across."""
    scenes = len(next(iter(table.values()))[1])
    print(f"\nSuccess, K = {count}, {scenes} scenes, [95 %]\n")
    print("| estimator | " + " | ".join(f"{snr:g} dB" for snr in snrs) + " |")
    print("|---" * (len(snrs) + 1) + "|")
    for name in names:
        cells = []
        for snr in snrs:
            hits = table[snr, count][0][name].success
            share = wilson_share(float(hits.mean()), len(hits))
            cells.append(f"{share.mean:.2f} [{share.low:.2f}, {share.high:.2f}]")
        print(f"| {name} | " + " | ".join(cells) + " |")


def error_table(table: dict, names: list[str], snrs: list[float], count: int) -> None:
    """Prints one K: SNRs down, the bound and the estimators across."""
    print(f"\nRoot mean square angle error [deg] and robust ratio to the root CRB, K = {count}\n")
    print("| SNR | root CRB | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 2) + "|")
    for snr in snrs:
        points, bound = table[snr, count]
        known = bound[np.isfinite(bound)]
        mean = f"{np.sqrt(known.mean()):.3g}" if len(known) else "unidentifiable"
        cells = []
        for name in names:
            root, low, high = root_interval(points[name].square_deg)
            robust = np.median(points[name].ratio) / 0.6745
            cells.append(f"{root:.3g} [{low:.3g}, {high:.3g}], {robust:.2f}")
        print(f"| {snr:g} dB | {mean} | " + " | ".join(cells) + " |")


def plot(table: dict, names: list[str], snrs: list[float], counts: list[int], path: Path) -> None:
    """Success and error against SNR, one column of panels per K."""
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(counts), figsize=(4.2 * len(counts), 7), sharex=True, sharey="row", squeeze=False
    )
    for column, count in enumerate(counts):
        upper, lower = axes[0, column], axes[1, column]
        for name in names:
            hits = [table[snr, count][0][name].success for snr in snrs]
            shares = [wilson_share(float(h.mean()), len(h)) for h in hits]
            upper.plot(snrs, [s.mean for s in shares], marker=".", label=name)
            upper.fill_between(snrs, [s.low for s in shares], [s.high for s in shares], alpha=0.15)
            roots = [root_interval(table[snr, count][0][name].square_deg) for snr in snrs]
            lower.plot(snrs, [r[0] for r in roots], marker=".", label=name)
            lower.fill_between(snrs, [r[1] for r in roots], [r[2] for r in roots], alpha=0.15)
        bounds = [table[snr, count][1] for snr in snrs]
        known = [b[np.isfinite(b)] for b in bounds]
        roots = [np.sqrt(b.mean()) if len(b) else np.nan for b in known]
        lower.plot(snrs, roots, "k--", label="root CRB")
        upper.set_title(f"K = {count}")
        lower.set_yscale("log")
        lower.set_xlabel("SNR [dB]")
        for axis in (upper, lower):
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("success within 5 deg")
    axes[1, 0].set_ylabel("RMS angle error [deg]")
    axes[1, 0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=120)


def main() -> None:
    """Prints the tables in Markdown and writes the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", choices=SCENES, default="local")
    parser.add_argument("--num-scenes", type=int, default=200, help="per SNR and K")
    parser.add_argument("--sources", type=int, nargs="+", help="values of K; default 1 to 3")
    parser.add_argument("--snr-db", type=float, nargs="+", default=[-15, -10, -5, 0, 5, 10, 20])
    parser.add_argument("--estimators", nargs="+", help="default: all that are fast enough")
    parser.add_argument("--plot", type=Path, help="PNG; default baselines_<scene>.png")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help="default: cuda where there is one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig.from_params(SCENES[options.scene]).scene
    counts = options.sources or list(range(1, min(config.max_sources, 3) + 1))
    names = options.estimators or list(ESTIMATORS[options.scene])
    table = {}
    for count in counts:
        for snr in options.snr_db:
            table[snr, count] = measure(
                config, names, snr, count, options.num_scenes, options.device
            )
        success_table(table, names, options.snr_db, count)
        error_table(table, names, options.snr_db, count)
    path = options.plot or Path(f"baselines_{options.scene}.png")
    plot(table, names, options.snr_db, counts, path)
    print(f"\nFigure: {path}")


if __name__ == "__main__":
    main()
