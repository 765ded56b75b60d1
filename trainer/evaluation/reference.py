"""A network against LMMSE-MUSIC at every reported SNR and K, on the scenes of validation: a search
may choose by it, and held-out scenes stay unseen."""

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import nn

from trainer.config import REFERENCE, TrainConfig
from trainer.intervals import bounded_means

from .conditions import Conditions, evaluate
from .protocol import classical_estimator, device_of, network_estimator

FALSE_MARKS = 0.025
"""Largest probability that a network is above at some point although at none in the mean."""


@dataclass(frozen=True)
class Margin:
    """Capped errors of a network minus those of LMMSE-MUSIC, paired by scene.

    Attributes:
        above: number of points (SNR and K) whose interval lies above 0; the intervals of all
            points hold together at 95 % (Bonferroni).
        points: number of points compared.
        scenes: number of scenes at each.
        snr_db, num_sources: the point where the network is most surely above, or least surely
            below: that of the highest lower end.
        difference, difference_low, difference_high: mean difference and interval there.
    """

    above: int
    points: int
    scenes: int
    snr_db: float
    num_sources: int
    difference: float
    difference_low: float
    difference_high: float


def margin_over_reference(network: nn.Module, config: TrainConfig) -> Margin:
    """Compare a network with LMMSE-MUSIC on the validation scenes, at the SNRs of reports."""
    evaluation, device = config.evaluation, device_of(network)
    conditions = Conditions(
        config.scene, evaluation.seed, evaluation.report_snr_db, evaluation.num_scenes, device
    )
    estimator = network_estimator(network, config.scene, device)
    scored = evaluate(estimator, "network", conditions, bound=False).scenes
    return summarise_margin(scored.capped_error - _reference_errors(conditions), conditions)


def summarise_margin(differences: NDArray[np.float64], conditions: Conditions) -> Margin:
    """Summarise differences per scene, in the order in which scenes are evaluated."""
    points = conditions.points()
    level = 1 - 2 * FALSE_MARKS / len(points)
    found = bounded_means(differences.reshape(len(points), -1), level=level)
    (snr_db, count), most = max(zip(points, found, strict=True), key=lambda point: point[1].low)
    return Margin(
        above=sum(each.low > 0 for each in found),
        points=len(points),
        scenes=most.n,
        snr_db=snr_db,
        num_sources=count,
        difference=most.mean,
        difference_low=most.low,
        difference_high=most.high,
    )


@functools.lru_cache(maxsize=2)
def _reference_errors(conditions: Conditions) -> NDArray[np.float64]:
    """Return the capped errors of LMMSE-MUSIC per scene; kept for all trials of a worker."""
    estimator = classical_estimator(REFERENCE, conditions.scene, conditions.device)
    return evaluate(estimator, REFERENCE, conditions, bound=False).scenes.capped_error
