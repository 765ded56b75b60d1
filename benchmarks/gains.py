"""Maximum likelihood through a panel whose states differ in gain, with and without the gains.

    python benchmarks/gains.py [--scenes 1000]

Panels of one bit, 6x6, one source: reflection .7 in one state and -1 in the other. Fisher scoring
starts at the truth, so the threshold is left out. Printed per SNR: the mean of squared angle error
over the bound, the root mean square error where moduli are forced to 1 over that with the measured
gains, and 95 % percentile intervals over scenes.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from trainer.config import SceneConfig
from trainer.estimation.estimates import Estimates
from trainer.estimation.fisher_scoring import refine_by_fisher_scoring
from trainer.evaluation.crb import stochastic_crb
from trainer.scenes import EvalScenes, Scenes, search_grid
from trainer.scenes.measurement import expected_signal

SCENE = SceneConfig(max_sources=1)
STATES = (0.7, -1.0)
SNRS_DB = (5.0, 10.0, 15.0, 20.0)
STEPS, RESAMPLES = 12, 1000


def measured(count: int, snr_db: float) -> Scenes:
    """Return scenes measured through the two states."""
    scenes = EvalScenes(SCENE, 7).batch(range(count), snr_db=snr_db, dtype=torch.complex128)
    codes = torch.tensor(STATES, dtype=scenes.codes.dtype)[(scenes.codes.real > 0).long()]
    mixed, power = expected_signal(scenes.panel, scenes.channel, codes, scenes.sources)
    generator = torch.Generator().manual_seed(7)
    normal = torch.randn(count, *mixed.shape[1:3], 2, generator=generator, dtype=mixed.dtype)
    variance = power / 10 ** (snr_db / 10)
    snapshots = mixed[..., 0] * normal[:, :, :1, 0]
    snapshots = snapshots + variance.sqrt()[:, None, None] * normal[..., 1]
    return replace(scenes, codes=codes, snapshots=snapshots, noise_variance=variance)


def squared_errors(scenes: Scenes) -> Tensor:
    """Return squared angle errors at the likelihood's maximum next to the truth, [B]."""
    truth = scenes.sources
    start = Estimates(truth.azimuth, truth.elevation, truth.range_m, truth.active, truth.active)
    found = refine_by_fisher_scoring(scenes, start, search_grid(SCENE, torch.float64), steps=STEPS)
    off = (found.azimuth - truth.azimuth).square() + (found.elevation - truth.elevation).square()
    return off[:, 0]


def interval(statistic: Callable[[Tensor], Tensor], count: int) -> str:
    """Return a statistic of scene numbers, and its percentile interval."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randint(count, (RESAMPLES, count), generator=generator)
    low, high = torch.stack([statistic(d) for d in draws]).quantile(
        torch.tensor([0.025, 0.975]).double()
    )
    return f"{statistic(torch.arange(count)):.2f} [{low:.2f}, {high:.2f}]"


def main() -> None:
    """Print one line per SNR."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--scenes", type=int, default=1000)
    count = p.parse_args().scenes
    print(f"n = {count} scenes a row\nSNR dB   MSE / CRB            forced / measured gains, RMSE")
    for snr_db in SNRS_DB:
        scenes = measured(count, snr_db)
        bound = stochastic_crb(scenes).angle[:, 0]
        right = squared_errors(scenes)
        forced = squared_errors(replace(scenes, codes=scenes.codes.sgn()))
        ratio = interval(lambda i, e=right, b=bound: (e[i] / b[i]).mean(), count)
        twice = interval(lambda i, f=forced, e=right: (f[i].mean() / e[i].mean()).sqrt(), count)
        print(f"{snr_db:6.0f}   {ratio:20} {twice}", flush=True)


if __name__ == "__main__":
    main()
