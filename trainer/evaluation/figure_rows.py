"""What a training does to a covariance, as plain rows: its eigenvalues, and what MUSIC sees in it.

Three covariances of the same held-out scenes are compared: `measured`, the LMMSE back-projected
sample covariance of classical MUSIC; `untrained`, the network's with its initial weights;
`trained`, the network's. All have trace 1, loading excluded, eigenvalues descending, so that the
eigengap is the step from eigenvalue K to K+1.

The pseudospectrum is N / ‖E_nᴴ a‖² [dB], E_n the eigenvectors but the first K (Schmidt 1986): 0 dB
where a steering vector has nothing in the signal subspace. Of all ranges the highest is shown.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from trainer.config import TrainConfig
from trainer.covariance import Covariance, lmmse, modes, sample_covariance
from trainer.estimation import music
from trainer.scenes import EvalScenes, Scenes, search_grid

NUM_SCENES = 64
"""Scenes behind an eigenvalue's median and spread."""
SPREAD = (0.1, 0.5, 0.9)
"""Quantiles over the scenes."""
POINTS_PER_BEAM = 8.0
"""Of the pseudospectrum's grid: fine enough to look smooth."""
SHOWN_SCENE = 0
"""The scene of the pseudospectrum: the first one, so that nobody has chosen it."""
SHOWN_SOURCES = 2
"""Its number of sources, or fewer where no scene has so many."""
LEAST_OUTSIDE = 1e-6
"""Share of a steering vector outside the signal subspace, at least: peaks end at 60 dB."""

Predict = Callable[[Scenes], Covariance]


@torch.no_grad()
def eigenvalue_rows(
    trained: nn.Module, untrained: nn.Module, config: TrainConfig
) -> list[dict[str, Any]]:
    """Eigenvalues over held-out scenes, one row per stage, SNR of the objective, K and index."""
    stages: dict[str, Predict] = {}
    stages |= {"measured": _measured, "untrained": untrained, "trained": trained}
    return [
        {"stage": stage, "snr_db": snr_db, "num_sources": count} | row
        for snr_db in config.evaluation.objective_snr_db
        for count in range(1, config.scene.max_sources + 1)
        for stage, predict in stages.items()
        for row in _eigenvalues(predict(_scenes(config, range(NUM_SCENES), snr_db, count)))
    ]


@torch.no_grad()
def pseudospectrum_rows(trained: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """MUSIC's pseudospectra of one held-out scene, the places it finds, and the true ones."""
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
    values = modes(replace(covariance, shift=torch.zeros_like(covariance.shift))).all_values
    levels = torch.tensor(SPREAD, dtype=values.dtype)
    low, middle, high = values.clamp(min=0).quantile(levels, dim=0).tolist()
    for index, value in enumerate(middle):
        yield {
            "index": index + 1,
            "eigenvalue": value,
            "eigenvalue_low": low[index],
            "eigenvalue_high": high[index],
        }


def _pseudospectrum(
    name: str, covariance: Covariance, scenes: Scenes, config: TrainConfig
) -> Iterator[dict[str, Any]]:
    count = scenes.sources.num_sources
    fine = search_grid(config.scene, points_per_beam=POINTS_PER_BEAM)
    signal = modes(covariance).vectors[..., : int(count)]
    inside = fine.correlate(signal)[0].abs().square().sum(0) / covariance.num_elements
    outside = (1 - inside.view(fine.shape).amax(0)).clamp(min=LEAST_OUTSIDE)
    planes, rows, columns = fine.shape
    azimuth, elevation, _ = fine.points.view(planes, rows, columns, 3)[0].unbind(-1)
    level_db = -10 * outside.log10()
    points = zip(azimuth.flatten(), elevation.flatten(), level_db.flatten(), strict=True)
    for point, (a, e, level) in enumerate(points):
        yield (
            {"estimator": name, "kind": "grid", "point": point}
            | _place(float(a), float(e))
            | {"level_db": float(level)}
        )
    found = music(covariance, count, search_grid(config.scene))
    seen = found.scored[0]
    yield from _places(name, found.azimuth[0, seen], found.elevation[0, seen])


def _places(name: str, azimuth: torch.Tensor, elevation: torch.Tensor) -> Iterator[dict[str, Any]]:
    for point, (a, e) in enumerate(zip(azimuth.tolist(), elevation.tolist(), strict=True)):
        yield {"estimator": name, "kind": "source", "point": point} | _place(a, e)


def _place(azimuth: float, elevation: float) -> dict[str, float]:
    return {"azimuth_deg": math.degrees(azimuth), "elevation_deg": math.degrees(elevation)}
