"""Confidence: the probability that an estimate is within 5° of a source in both angles.

A covariance that a network predicts is a posterior mean: it spreads power over the places that the
network hesitates between. Three features measure this, for an estimate at steering vector a among
K in a trace-1 R:

    logit of K aᴴ R a / N    share of a source's power that lies in the beam at the estimate
    K (ℓ_K - ℓ_(K+1))        the eigengap, 1 where K equal sources are certain
    tr R²                    purity, 1/K there, and 1/N where nothing is known

A logistic regression turns them into a probability. It is fitted to scenes drawn like those of the
training, so that of all estimates with confidence .7, 70 % are right: *on such scenes*, with their
share of low SNRs. Where K is asked, by the evidence, it has coefficients of its own: an estimate
of a source that is not there has the features of one that is. References: Platt 1999,
"Probabilistic outputs"; Naeini et al. 2015 (expected calibration error).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.config import SceneConfig, TrainConfig
from trainer.covariance import Covariance, eigendecompose
from trainer.estimation import Estimates, likeliest_number_on, refined_music
from trainer.linalg import squared_magnitude
from trainer.scenes import Scenes, require_placed, search_grid, simulate

from .metrics import TOLERANCE_DEG

SCENES = 1024
"""Scenes to fit to; the calibration error is measured on each half by the fit to the other."""
BATCH_SIZE = 128
SEED = 4_000_003
"""Seed of these scenes; differs from the seeds of `EvaluationConfig`."""
BINS = 10
"""Bins of the expected calibration error, with equally many estimates each."""
NUM_COEFFICIENTS = 4
"""A constant, and one for each feature."""
RIDGE = 1e-2
"""Keeps the coefficients finite where one feature separates right from wrong."""
NEWTON_STEPS = 30
LEAST_SHARE = 1e-4
"""Shares of power are kept this far from 0 and 1, where the logit is infinite."""


@dataclass(frozen=True)
class Calibration:
    """Fitted logistic regressions, for K told and K asked.

    Attributes:
        coefficients: of a constant and of the three features, in the module's order.
        error: expected calibration error, by cross-validation.
        count: number of scenes.
        asked_coefficients, asked_error: where K is asked. None in models of before, which then
            use `coefficients`.
    """

    coefficients: tuple[float, ...]
    error: float
    count: int
    asked_coefficients: tuple[float, ...] | None = None
    asked_error: float | None = None

    def confidence(self, features: Tensor, *, asked: bool = False) -> Tensor:
        """Return the probabilities [B, K], in (0, 1), of `confidence_features` [B, K, 3]."""
        chosen = (asked and self.asked_coefficients) or self.coefficients
        weights = torch.tensor(chosen, dtype=torch.float64, device=features.device)
        log_odds = weights[0] + features.double() @ weights[1:]
        return log_odds.sigmoid().to(features.dtype)


def confidence_features(
    covariance: Covariance, estimates: Estimates, num_sources: Tensor, scene: SceneConfig
) -> Tensor:
    """Return the three features of every estimate, [B, K_max, 3]; finite, 0 in inactive slots."""
    held = covariance.held
    search = search_grid(scene, held.real.dtype, held.device)
    place = torch.stack([estimates.azimuth, estimates.elevation, 1 / estimates.range_m], dim=-1)
    steering = search.response(place)
    beams = steering.conj() @ held
    if covariance.factor is None:
        power = (beams * steering).sum(-1).real
    else:
        power = squared_magnitude(beams).sum(-1)
    count = num_sources.clamp(min=1)
    share = count.unsqueeze(-1) * power / covariance.num_elements
    values = eigendecompose(covariance).all_values - covariance.shift.unsqueeze(-1)
    pair = values.gather(-1, torch.stack([count - 1, count], dim=-1))
    gap = count * (pair[:, 0] - pair[:, 1])
    purity = values.square().sum(-1)
    shared = torch.stack([gap, purity], dim=-1).unsqueeze(1).expand(-1, share.shape[1], -1)
    logit = share.clamp(LEAST_SHARE, 1 - LEAST_SHARE).logit()
    features = torch.cat([logit.unsqueeze(-1), shared], dim=-1)
    return features * estimates.active.unsqueeze(-1)


def near_a_source(estimates: Estimates, scenes: Scenes) -> Tensor:
    """Return True for estimates within `TOLERANCE_DEG` of any source in both angles: [B, K]."""
    truth = scenes.sources
    azimuth = estimates.azimuth.unsqueeze(-1) - truth.azimuth.unsqueeze(-2)
    elevation = estimates.elevation.unsqueeze(-1) - truth.elevation.unsqueeze(-2)
    error = torch.maximum(azimuth.abs(), elevation.abs()).rad2deg()
    near = ((error <= TOLERANCE_DEG) & truth.active.unsqueeze(-2)).any(-1)
    return near & estimates.scored


@torch.no_grad()
def calibrate(network: nn.Module, config: TrainConfig) -> Calibration:
    """Fit confidence to scenes drawn like the training's, K told and K asked, and measure its
    errors by cross-validation."""
    device = next(network.parameters()).device
    generator = torch.Generator(device).manual_seed(SEED)
    told, asked = [], []
    for _ in range(0, SCENES, BATCH_SIZE):
        scenes = simulate(
            config.scene,
            BATCH_SIZE,
            snr_db=(config.snr_min_db, config.snr_max_db),
            generator=generator,
            device=device,
        )
        require_placed(config.scene, scenes.sources.azimuth)
        covariance, count = network(scenes), scenes.sources.num_sources
        number = likeliest_number_on(scenes, covariance, config.scene)
        agree = number == count
        agreed = confidence_outcomes(scenes, covariance, count * agree, config)
        told += [agreed, confidence_outcomes(scenes, covariance, count * ~agree, config)]
        asked += [agreed, confidence_outcomes(scenes, covariance, number * ~agree, config)]
    coefficients, error = _fit_and_check(told)
    return Calibration(coefficients, error, SCENES, *_fit_and_check(asked))


def confidence_outcomes(
    scenes: Scenes, covariance: Covariance, count: Tensor, config: TrainConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the features [n, 3] of all scored estimates, whether they are right, and the number
    of their scene, [n] each, on the CPU.

    Args:
        count: K, [B]; scenes of 0 are left out.
    """
    some = count.nonzero().flatten()
    if not len(some):
        return torch.empty(0, NUM_COEFFICIENTS - 1), some.bool().cpu(), some.cpu()
    scenes, covariance, count = scenes.take(some), covariance.take(some), count[some]
    how = config.evaluation.refinement
    estimates = refined_music(scenes, covariance, count, config.scene, how)
    features = confidence_features(covariance, estimates, count, config.scene)
    kept = estimates.scored
    right, of_scene = near_a_source(estimates, scenes), some.unsqueeze(-1).expand_as(kept)
    return features[kept].cpu(), right[kept].cpu(), of_scene[kept].cpu()


def _fit_and_check(
    outcomes: list[tuple[Tensor, Tensor, Tensor]],
) -> tuple[tuple[float, ...], float]:
    # coefficients of all, and the expected calibration error of those of each half on the other
    middle = len(outcomes) // 2
    halves = outcomes[:middle], outcomes[middle:]
    features, right = (
        [torch.cat([each[part] for each in half]) for half in halves] for part in (0, 1)
    )
    fitted = [
        Calibration(fit_logistic(*half), 0.0, 0) for half in zip(features, right, strict=True)
    ]
    crossed = [fitted[1].confidence(features[0]), fitted[0].confidence(features[1])]
    error = calibration_error(torch.cat(crossed), torch.cat(right))
    return fit_logistic(torch.cat(features), torch.cat(right)), error


def fit_logistic(features: Tensor, right: Tensor) -> tuple[float, ...]:
    """Return the 1 + F coefficients of the logistic regression of `right` [n] on [n, F]."""
    rows = torch.cat([torch.ones_like(features[:, :1]), features], dim=-1).double()
    truth = right.double()
    weights = rows.new_zeros(rows.shape[-1])
    ridge = RIDGE * torch.eye(len(weights), dtype=rows.dtype)
    for _ in range(NEWTON_STEPS):
        predicted = (rows @ weights).sigmoid()
        gradient = rows.mT @ (truth - predicted) - ridge @ weights
        curvature = (rows * (predicted * (1 - predicted)).unsqueeze(-1)).mT @ rows + ridge
        weights = weights + torch.linalg.solve(curvature, gradient)
    return tuple(weights.tolist())


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Return the mean of |share right - mean confidence| over bins of equally many estimates.

    NaN for no estimates at all.
    """
    if not len(confidence):
        return math.nan
    order = confidence.argsort(stable=True)
    off = [
        (confidence[part].double().mean() - right[part].double().mean()).abs() * len(part)
        for part in order.tensor_split(min(BINS, len(order)))
    ]
    return float(torch.stack(off).sum()) / len(order)
