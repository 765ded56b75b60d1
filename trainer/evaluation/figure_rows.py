"""Rows for the figures of a trained network: eigenvalues, and the pseudospectrum of a scene.

    measured    the LMMSE back-projection's sample covariance, without a network
    untrained   the network with its initial weights
    trained     the network

Eigenvalues descend and are of matrices of trace 1, loading excluded, so that the eigengap is the
step from eigenvalue K to K+1. All covariances are of the same held-out scenes.

The pseudospectrum is N / ‖E_nᴴ a‖² [dB], E_n the eigenvectors but the first K (Schmidt 1986): 0 dB
where a steering vector has no component in the signal subspace. At each angle the highest value
over the ranges is given.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.covariance import Covariance, eigendecompose, lmmse, sample_covariance
from trainer.estimation import music
from trainer.linalg import squared_magnitude
from trainer.scenes import EvalScenes, Scenes, search_grid

NUM_SCENES = 64
"""Scenes behind an eigenvalue's median and spread."""
QUANTILES = (0.1, 0.5, 0.9)
POINTS_PER_BEAM = 8.0
"""Density of the pseudospectrum's grid: fine enough to look smooth."""
SHOWN_SCENE = 0
"""Scene of the pseudospectrum: the first one, so that nobody has chosen it."""
SHOWN_SOURCES = 2
"""Its number of sources, or fewer where no scene has so many."""
LEAST_OUTSIDE = 1e-6
"""Least share of a steering vector outside the signal subspace: peaks end at 60 dB."""

Predict = Callable[[Scenes], Covariance]


@torch.no_grad()
def eigenvalue_rows(
    trained: nn.Module, untrained: nn.Module, config: TrainConfig
) -> list[dict[str, Any]]:
    """Return eigenvalues over held-out scenes, a row per stage, SNR of the objective, K, index."""
    stages: dict[str, Predict] = {
        "measured": _measured,
        "untrained": untrained,
        "trained": trained,
    }
    return [
        {"stage": stage, "snr_db": snr_db, "num_sources": count} | row
        for snr_db in config.evaluation.objective_snr_db
        for count in range(1, config.scene.max_sources + 1)
        for stage, predict in stages.items()
        for row in _eigenvalues(predict(_scenes(config, range(NUM_SCENES), snr_db, count)))
    ]


@torch.no_grad()
def pseudospectrum_rows(trained: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Return MUSIC's pseudospectra of one held-out scene, its estimates, and the true places."""
    snr_db = max(config.evaluation.objective_snr_db)
    count = min(SHOWN_SOURCES, config.scene.max_sources)
    scenes = _scenes(config, range(SHOWN_SCENE, SHOWN_SCENE + 1), snr_db, count)
    sources = scenes.sources
    rows = [*_places("truth", sources.azimuth[0, :count], sources.elevation[0, :count])]
    for name, covariance in {"lmmse_music": _measured(scenes), "network": trained(scenes)}.items():
        rows += _pseudospectrum(name, covariance, scenes, config)
    about = {"scene_id": SHOWN_SCENE, "snr_db": snr_db, "num_sources": count}
    return [row | about for row in rows]


def _measured(scenes: Scenes) -> Covariance:
    return sample_covariance(lmmse(scenes))


def _scenes(config: TrainConfig, ids: range, snr_db: float, count: int) -> Scenes:
    scenes = EvalScenes(config.scene, config.evaluation.test_seed)
    return scenes.batch(ids, snr_db=snr_db, num_sources=count)


def _eigenvalues(covariance: Covariance) -> Iterator[dict[str, Any]]:
    values = eigendecompose(
        replace(covariance, shift=torch.zeros_like(covariance.shift))
    ).all_values
    levels = torch.tensor(QUANTILES, dtype=values.dtype)
    quantiles = values.clamp(min=0).quantile(levels, dim=0).T.tolist()
    for index, (low, middle, high) in enumerate(quantiles, 1):
        yield {
            "index": index,
            "eigenvalue": middle,
            "eigenvalue_low": low,
            "eigenvalue_high": high,
        }


def _pseudospectrum(
    name: str, covariance: Covariance, scenes: Scenes, config: TrainConfig
) -> Iterator[dict[str, Any]]:
    count = scenes.sources.num_sources
    fine = search_grid(config.scene, points_per_beam=POINTS_PER_BEAM)
    signal = eigendecompose(covariance).vectors[..., : int(count)]
    inside = squared_magnitude(fine.correlate(signal)[0]).sum(0) / covariance.num_elements
    outside = (1 - inside.view(fine.shape).amax(0)).clamp(min=LEAST_OUTSIDE)
    azimuth, elevation, _ = fine.points.view(*fine.shape, 3)[0].unbind(-1)
    level_db = -10 * outside.log10()
    points = zip(*(x.flatten().tolist() for x in (azimuth, elevation, level_db)), strict=True)
    for point, (a, e, level) in enumerate(points):
        row = {"estimator": name, "kind": "grid", "point": point}
        yield row | _place(a, e) | {"level_db": level}
    found = music(covariance, count, search_grid(config.scene))
    shown = found.scored[0]
    yield from _places(name, found.azimuth[0, shown], found.elevation[0, shown])


def _places(name: str, azimuth: Tensor, elevation: Tensor) -> Iterator[dict[str, Any]]:
    for point, (a, e) in enumerate(zip(azimuth.tolist(), elevation.tolist(), strict=True)):
        yield {"estimator": name, "kind": "source", "point": point} | _place(a, e)


def _place(azimuth: float, elevation: float) -> dict[str, float]:
    return {"azimuth_deg": math.degrees(azimuth), "elevation_deg": math.degrees(elevation)}
