"""Confidence: how probable it is that an estimate lies within 5° of a source in azimuth and
elevation, the same two tolerances as `metrics.success`.

A covariance that a network predicts is a posterior mean: what it is unsure of, it spreads. Three
numbers say how much, for an estimate at steering vector a among K in a trace-1 R:

    logit of K aᴴ R a / N    share of a source's power that lies in the beam at the estimate
    K (ℓ_K - ℓ_(K+1))        the eigengap, 1 where K equal sources are certain
    tr R²                    purity, 1/K there, and 1/N where nothing is known

A logistic regression on them, fitted to scenes of the training's law, turns them into a
probability, so that of all estimates with confidence .7, 70 % should be right: *on such scenes*,
with their share of low SNRs. Reference: Platt 1999, "Probabilistic outputs"; expected calibration
error: Naeini et al. 2015.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.config import SceneConfig, TrainConfig
from trainer.covariance import Covariance, modes
from trainer.estimation import Estimates, read
from trainer.scenes import Scenes, search_grid, simulate

from .metrics import TOLERANCE_DEG

SCENES = 1024
"""Scenes to fit to, and as many to measure the fit on."""
PART = 128
"""Scenes done at once."""
SEED = 4_000_003
"""Of these scenes: not one of `EvaluationConfig`."""
BINS = 10
"""Of the expected calibration error, with equally many estimates each."""
NUM_COEFFICIENTS = 4
"""Of a constant and the three numbers."""
RIDGE = 1e-2
"""Keeps the coefficients finite where one number separates right from wrong."""
NEWTON_STEPS = 30
LEAST_SHARE = 1e-4
"""Shares of power nearer to 0 or 1 than this are taken for this."""


@dataclass(frozen=True)
class Calibration:
    """A fitted logistic regression.

    Attributes:
        coefficients: of a constant and of the three numbers, in the module's order.
        error: expected calibration error, on scenes that it was not fitted to.
        count: of those scenes.
    """

    coefficients: tuple[float, ...]
    error: float
    count: int

    def confidence(self, numbers: Tensor) -> Tensor:
        """Probabilities, [B, K], of what `numbers_of` gave, [B, K, 3]; in (0, 1)."""
        weights = torch.tensor(self.coefficients, dtype=torch.float64, device=numbers.device)
        odds = weights[0] + numbers.double() @ weights[1:]
        return odds.sigmoid().to(numbers.dtype)


def confidence_features(
    covariance: Covariance, estimates: Estimates, num_sources: Tensor, scene: SceneConfig
) -> Tensor:
    """The three numbers of every estimate, [B, K_max, 3]; finite, 0 in inactive slots."""
    held = covariance.held
    search = search_grid(scene, held.real.dtype, held.device)
    place = torch.stack([estimates.azimuth, estimates.elevation, 1 / estimates.range_m], dim=-1)
    steering = search.response(place)
    beams = steering.conj() @ held
    if covariance.factor is None:
        power = (beams * steering).sum(-1).real
    else:
        power = (beams.real.square() + beams.imag.square()).sum(-1)
    count = num_sources.clamp(min=1)
    share = count.unsqueeze(-1) * power / covariance.num_elements
    values = modes(covariance).all_values - covariance.shift.unsqueeze(-1)
    pair = values.gather(-1, torch.stack([count - 1, count], dim=-1))
    gap = count * (pair[:, 0] - pair[:, 1])
    purity = values.square().sum(-1)
    shared = torch.stack([gap, purity], dim=-1).unsqueeze(1).expand(-1, share.shape[1], -1)
    logit = share.clamp(LEAST_SHARE, 1 - LEAST_SHARE).logit()
    numbers = torch.cat([logit.unsqueeze(-1), shared], dim=-1)
    return numbers * estimates.active.unsqueeze(-1)


def near_a_source(estimates: Estimates, scenes: Scenes) -> Tensor:
    """Which estimates have a true source within the tolerances, [B, K_max]."""
    truth = scenes.sources
    azimuth = estimates.azimuth.unsqueeze(-1) - truth.azimuth.unsqueeze(-2)
    elevation = estimates.elevation.unsqueeze(-1) - truth.elevation.unsqueeze(-2)
    off = torch.maximum(azimuth.abs(), elevation.abs()).rad2deg()
    hit = ((off <= TOLERANCE_DEG) & truth.active.unsqueeze(-2)).any(-1)
    return hit & estimates.scored


@torch.no_grad()
def calibrate(network: nn.Module, config: TrainConfig) -> Calibration:
    """Fits confidence to scenes of the training's law, K told, and measures it on others."""
    device = next(network.parameters()).device
    generator = torch.Generator(device).manual_seed(SEED)
    numbers, right = [], []
    for _ in range(0, 2 * SCENES, PART):
        scenes = simulate(
            config.scene,
            PART,
            snr_db=(config.snr_min_db, config.snr_max_db),
            generator=generator,
            device=device,
        )
        count = scenes.sources.num_sources
        covariance = network(scenes)
        estimates = read(scenes, covariance, count, config.scene)
        chosen = estimates.active
        numbers.append(
            confidence_features(covariance, estimates, count, config.scene)[chosen].cpu()
        )
        right.append(near_a_source(estimates, scenes)[chosen].cpu())
    half = len(numbers) // 2
    coefficients = fit_logistic(torch.cat(numbers[:half]), torch.cat(right[:half]))
    fitted = Calibration(coefficients, error=0.0, count=SCENES)
    said = fitted.confidence(torch.cat(numbers[half:]))
    error = calibration_error(said, torch.cat(right[half:]))
    return Calibration(coefficients, error, SCENES)


def fit_logistic(numbers: Tensor, right: Tensor) -> tuple[float, ...]:
    """Coefficients of the logistic regression of `right` [n] on `numbers` [n, F]: 1 + F."""
    rows = torch.cat([torch.ones_like(numbers[:, :1]), numbers], dim=-1).double()
    truth = right.double()
    weights = rows.new_zeros(rows.shape[-1])
    ridge = RIDGE * torch.eye(len(weights), dtype=rows.dtype)
    for _ in range(NEWTON_STEPS):
        said = (rows @ weights).sigmoid()
        slope = rows.mT @ (truth - said) - ridge @ weights
        curvature = (rows * (said * (1 - said)).unsqueeze(-1)).mT @ rows + ridge
        weights = weights + torch.linalg.solve(curvature, slope)
    return tuple(weights.tolist())


def calibration_error(confidence: Tensor, right: Tensor) -> float:
    """Mean of |share right - mean confidence| over bins of equally many estimates."""
    order = confidence.argsort(stable=True)
    off = [
        (confidence[part].double().mean() - right[part].double().mean()).abs() * len(part)
        for part in order.tensor_split(min(BINS, len(order)))
    ]
    return float(torch.stack(off).sum()) / len(order)
