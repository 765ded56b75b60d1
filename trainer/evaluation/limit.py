"""The limit: the least expected capped error of any estimator, by two observers.

The Cramér-Rao bound is on the mean square of unbiased estimators, and says nothing below
threshold. The Bayes risk is the least expected capped error that any function of the data can
have, over the law that scenes are drawn from (Van Trees and Bell 2007, Bayesian Bounds, ch. 1). It
knows K, the channel, the codes, that powers are equal, and the law of places. Its observers are

    shape  knows the SNR too, but not the scale of the snapshots: no method whose estimates are the
           same for y and 2y has less
    blind  knows neither, so a function of the data reaches it; SNRs from -24 to 28 dB are equally
           likely to it

For every scene the Bayes estimate is computed from draws of the posterior, and its error measured
against the truth: so a limit pairs with any estimator, scene by scene. The error that the
posterior expects has the same mean if draws and law are right; `trainer.limits.fault_of` says
where it has not.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from statistics import fmean

import numpy as np
import torch

from trainer.config import LIMIT_NAMES, SceneConfig, TrainConfig
from trainer.intervals import Interval, bootstrap_mean, normal_mean
from trainer.limits import (
    LIMITS,
    KeptLimits,
    LimitByObserver,
    LimitScenes,
    fault_of,
    limit_tables,
    scenes_in,
    snr_of_limit,
)
from trainer.posterior import expected_error, law_of_places, least_expected_error, sample_posterior
from trainer.scenes import EvalScenes

from .metrics import CAP_DEG
from .rows import ErrorsPerScene, to_numpy

LIMIT_CHUNK = 8
"""Scenes sampled at once."""
DRAW_SEED = 5_000_011
"""Of the draws; with the number of a chunk's first scene, it seeds the chunk."""


@torch.no_grad()
def limit_of_scenes(
    scene: SceneConfig,
    seed: int,
    ids: range,
    *,
    snr_db: float,
    num_sources: int,
    device: torch.device | str = "cpu",
) -> LimitByObserver:
    """Return the limit by observer in the evaluation scenes of these numbers, one chunk of them.

    Raises:
        ConfigError: for a law whose posterior is not known (`law_of_places`).
        ValueError: for more than two sources.
    """
    scenes = EvalScenes(scene, seed).batch(
        ids, snr_db=snr_db, num_sources=num_sources, device=device
    )
    law = law_of_places(scene, str(device))
    generator = torch.Generator(device).manual_seed(DRAW_SEED + ids.start)
    posterior = sample_posterior(scenes, law, num_sources, generator)
    truth = torch.stack([scenes.sources.azimuth, scenes.sources.elevation], dim=-1)
    truth = truth[:, None, :num_sources]
    certain = torch.ones(len(ids), 1, device=truth.device)
    cap = math.radians(CAP_DEG)
    found = {}
    for observer in LIMITS.values():
        weights = posterior.log_weights[observer]
        least = least_expected_error(posterior.places, weights, law.lower, law.upper, cap=cap)
        error = expected_error(least.directions.unsqueeze(1), truth, certain, cap=cap)
        found[observer] = LimitScenes(
            to_numpy(error[:, 0]),
            to_numpy(least.risk),
            to_numpy(posterior.effective_draws(observer)),
        )
    return found


def extend_limit(
    kept: KeptLimits,
    snr_db: float,
    num_sources: int,
    num_scenes: int,
    *,
    start: LimitByObserver,
    folder: Path,
    device: torch.device | str = "cpu",
) -> Iterator[LimitByObserver]:
    """Yield a point, first `start`, what is known of it, then with every chunk up to `num_scenes`.

    Each chunk is kept in `folder` at once, so that a computation that was stopped goes on.

    Raises:
        ConfigError, ValueError: as `limit_of_scenes`.
        OSError: if the folder cannot be written to.
    """
    point = start
    yield point
    for first in range(scenes_in(point), num_scenes, LIMIT_CHUNK):
        more = limit_of_scenes(
            kept.scene,
            kept.seed,
            range(first, first + LIMIT_CHUNK),
            snr_db=snr_db,
            num_sources=num_sources,
            device=device,
        )
        point = {k: point[k].joined(v) for k, v in more.items()} if point else more
        kept.save(folder, snr_db, num_sources, point)
        yield point


def distance_to_limit(config: TrainConfig, scenes: ErrorsPerScene) -> Interval | None:
    """Return an estimator's capped error minus the limit *shape*, or None if that is not kept.

    The mean over K and those SNRs of the objective that have a limit, as `snr_of_limit` names
    them; paired over the held-out scenes that both have at all of these points.
    """
    known = snr_of_limit(config)
    kept = {
        (row["scene_id"], row["snr_db"], row["num_sources"]): row["capped_error"]
        for row in limit_tables(LIMIT_NAMES[0], config)["scenes"]
        if row["snr_db"] in known
    }
    surplus: dict[int, list[float]] = {}
    for row in scenes.rows():
        at = row["scene_id"], row["snr_db"], row["num_sources"]
        if at in kept:
            surplus.setdefault(row["scene_id"], []).append(row["capped_error"] - kept[at])
    points = len({at[1:] for at in kept})
    whole = [fmean(values) for values in surplus.values() if len(values) == points]
    return bootstrap_mean(whole) if whole else None


def limit_lines(snr_db: float, num_sources: int, point: LimitByObserver) -> list[str]:
    """Return a line per observer: the limit with its 95 % interval, or why there is none."""
    lines = []
    for name, observer in LIMITS.items():
        scenes = point[observer]
        where = f"{name:<12} {snr_db:>6g} dB  K={num_sources}  {len(scenes):>5} scenes"
        draws = f"draws' worth {np.median(scenes.draws):.0f} ({scenes.draws.min():.0f} at least)"
        if fault := fault_of(point, observer):
            lines.append(f"{where}  not known: {fault}; {draws}")
            continue
        found = bootstrap_mean(scenes.error)
        interval = f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"
        expected = f"expected {normal_mean(scenes.expected).mean:.3f}"
        lines.append(f"{where}  {interval}  {expected}  {draws}")
    return lines
