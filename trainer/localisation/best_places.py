"""The places at which a scene is tested, and the evidence that its phase sign is reversed.

The test is of the scene, not of an estimator: an estimate may be wrong although the scene is of
the law. So scoring on the likelihood climbs from the estimate, and where the place it reaches does
not explain the scene, stochastic maximum likelihood searches the whole region.

The commonest mistake in foreign data, a phase that rises with distance, leaves a planar wave that
the mirrored direction explains; only the curvature tells. So it is tested by name: the conjugated
scene is searched as well, each sign also from the other's places, mirrored. With D = the gain in
log likelihood, exp(D) is the ratio of two maximised likelihoods. Of noise alone both are maxima
over many places, about Gumbel distributed, and their difference is logistic: the p value is
1 / (1 + exp(D)). Where there are sources, the reading that is wrong falls behind.

Where D leaves the sign open and the posterior has a law (K <= 2, equal powers, no large region),
the evidence decides: Δ = log Z(given) - log Z(reversed), with Z the mean likelihood over the law
of places and SNRs. A region that ends beyond `FARTHEST` is open to plane waves, which have no
sign, and a law uniform in range would hardly have others. There Z is that of sources up to `NEAR`
and, with the probability `PLANE`, that of the farthest, the same for both signs: so plane waves
leave the sign open.

Over the law E exp(-Δ) = 1, so P(-Δ > t) <= exp(-t) without any measurement (Markov; where waves
may be plane, the law is that mixture). That bound is loose, since scenes either tell the sign or
hardly anything. Those at -15 ... -5 dB that lean to the wrong sign would be most of the false
alarms, though nothing is to be told there: where the likeliest SNR of the reversed reading is
below `LEAST_SNR_DB`, D decides.
Then fewer than `SIGN_LEVEL` of the law's scenes have -Δ > `LEAST_EVIDENCE`: p = `SIGN_LEVEL`
exp(Δ + `LEAST_EVIDENCE`), calibrated by measurement (`benchmarks/goodness_of_fit.py`), as a mean
over the law's SNRs, and at this level only.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import bdtrc, chdtrc
from torch import Tensor

from trainer.config import SceneConfig
from trainer.covariance import whiten
from trainer.estimation import LEAST_RATIO, Estimates, score, sml
from trainer.posterior import MOST_SOURCES, has_evidence, log_evidence
from trainer.scenes import Scenes, SearchGrid, search_grid

from .goodness_of_fit import goodness_of_fit

LEVEL = 0.01
"""Scenes with a smaller p value do not fit: the share of the law's own scenes that may not."""
STEPS = 6
"""Of scoring, from an estimate."""
OPEN = 10.0
"""|D| up to which the evidence is asked; beyond, both say the same."""
LEAST_EVIDENCE = 1.25
"""-Δ from which a scene has the other phase sign."""
LEAST_SNR_DB = -4.0
"""SNR below which the evidence does not judge."""
TOGETHER = 0.001
"""Level of p values taken together: larger ones are too small at -4 dB, where the evidence judges
the sign (.09 below .05, .17 below .1; two sources, n = 64)."""
FARTHEST = 5.0
"""Far end, in 2 D² / wavelength, of a region that has the law of the evidence as a whole."""
NEAR = 0.5
"""Far end, in 2 D² / wavelength, of the curved waves of a region that ends farther away: phases at
the panel's corners are 45° off those of a plane wave."""
PLANE = 0.25
"""Probability that waves are plane there."""
SIGN_LEVEL = 0.0075
"""Share of `LEVEL` that the phase sign has; the rest is the residual's (Bonferroni)."""


class Explanation(NamedTuple):
    """Scenes at the places that explain them best.

    Attributes:
        positions: [B, K, 3], of the highest likelihood that was found.
        explained, residual_p: as in `goodness_of_fit.Fit`, [B].
        p_value: with the test of the phase sign, [B].
        value: negative log likelihood there, [B].
        reversed_gain, sign_evidence: D and Δ of the module docstring, [B]; Δ is NaN where D
            decides.
        scale, scale_std: as in `goodness_of_fit.Fit`, [B].
    """

    positions: Tensor
    explained: Tensor
    residual_p: Tensor
    p_value: Tensor
    value: Tensor
    reversed_gain: Tensor
    sign_evidence: Tensor
    scale: Tensor
    scale_std: Tensor

    def take(self, scenes: Tensor) -> "Explanation":
        """Return those of some scenes."""
        return Explanation(*(x[scenes] for x in self))

    def put(self, numbers: Tensor, others: "Explanation") -> "Explanation":
        """Return the same with the scenes of these numbers replaced by others."""
        pairs = zip(self, others, strict=True)
        return Explanation(*(x.index_copy(0, numbers, other) for x, other in pairs))


@torch.no_grad()
def explain(scenes: Scenes, found: Estimates, scene: SceneConfig) -> Explanation:
    """Return the best explanation of scenes by as many sources as were estimated."""
    search = search_grid(scene, torch.float32, scenes.snapshots.device)
    slots = max(int(found.active.sum(-1).max()), 1)
    active, positions = found.active[:, :slots], found.positions[:, :slots].double()
    zero = positions.new_zeros(len(positions))
    nan = torch.full_like(zero, torch.nan)
    unknown = Explanation(
        positions,
        explained=zero,
        residual_p=nan,
        p_value=nan,
        value=torch.full_like(zero, torch.inf),
        reversed_gain=zero,
        sign_evidence=nan,
        scale=nan,
        scale_std=nan,
    )
    measured = (scenes.snapshots != 0).any((1, 2)) & (scenes.channel != 0).any((1, 2))
    numbers = measured.nonzero().flatten()
    if not len(numbers):
        return unknown
    scenes, active, positions = scenes.take(numbers), active[numbers], positions[numbers]
    other = reverse_phase(scenes)
    searched = sml(other, active.sum(-1), search, slots=slots).positions
    reverse = climb(other, searched, active, search)
    given = climb(scenes, positions, active, search)
    # what one sign finds, the other may have missed, mirrored
    given = _higher(given, climb(scenes, _mirror(reverse[0]), active, search))
    _, against = _higher(reverse, climb(other, _mirror(given[0]), active, search))
    first = _explain(scenes, *given, active, against, search)
    # search the given sign over the whole region, too, before calling it the worse one
    again = ((first.p_value < LEVEL) | (first.reversed_gain > 0)).nonzero().flatten()
    if len(again):
        part = scenes.take(again)
        searched = sml(part, active[again].sum(-1), search, slots=slots).positions
        found_again = climb(part, searched, active[again], search)
        second = _explain(part, *found_again, active[again], against[again], search)
        before = first.take(again)
        # the scene fits if it does so at any place
        better = second.p_value > before.p_value
        chosen = before.put(better.nonzero().flatten(), second.take(better))
        gain = torch.minimum(before.reversed_gain, second.reversed_gain)
        first = first.put(again, chosen._replace(reversed_gain=gain))
    evidence = sign_evidence(scenes, active.sum(-1), first.reversed_gain, scene)
    by_evidence = SIGN_LEVEL * (evidence + LEAST_EVIDENCE).exp()
    by_gain = (-first.reversed_gain).sigmoid()
    p_value = _least(first.residual_p, by_gain.where(evidence.isnan(), by_evidence))
    return unknown.put(numbers, first._replace(p_value=p_value, sign_evidence=evidence))


def sign_evidence(
    scenes: Scenes, num_sources: Tensor, reversed_gain: Tensor, scene: SceneConfig
) -> Tensor:
    """Return Δ of the module docstring, [B].

    NaN where D = `reversed_gain` [B] decides: it is beyond `OPEN`, the SNR below `LEAST_SNR_DB`,
    the posterior knows no law of so many sources or of such powers, the region is too large for it
    or begins beyond `NEAR`, or it is sampled too poorly.
    """
    evidence = torch.full_like(reversed_gain, torch.nan)
    near, far = _near_and_far(scene)
    if near is None or not has_evidence(near):
        return evidence
    for count in range(1, MOST_SOURCES + 1):
        asked = (num_sources == count) & (reversed_gain.abs() <= OPEN)
        part = scenes.take(asked.nonzero().flatten())
        if part.batch_size:
            given, _ = log_evidence(part, near, count)
            other, snr_db = log_evidence(reverse_phase(part), near, count)
            if far is not None:
                plane, _ = log_evidence(part, far, count)
                plane = plane + math.log(PLANE / (1 - PLANE))
                given, other = given.logaddexp(plane), other.logaddexp(plane)
            told = (given - other).where(snr_db >= LEAST_SNR_DB, torch.nan)
            evidence[asked] = told.to(evidence)
    return evidence


def _near_and_far(scene: SceneConfig) -> tuple[SceneConfig | None, SceneConfig | None]:
    """Return the parts of the region whose waves are curved, and plane; None where there is none.

    A region that ends at `FARTHEST` at most is curved as a whole. Of plane waves the farthest half
    is all: draws, even in 1/range, hardly meet it in a region that begins near the panel.
    """
    if scene.range_max_m <= FARTHEST * scene.fraunhofer_m:
        return scene, None
    middle = NEAR * scene.fraunhofer_m
    if scene.range_min_m >= middle:
        return None, scene
    plane = replace(scene, range_min_m=scene.range_max_m / 2)
    return replace(scene, range_max_m=middle), plane


def climb(
    scenes: Scenes, positions: Tensor, active: Tensor, search: SearchGrid
) -> tuple[Tensor, Tensor]:
    """Return the positions [B, K, 3] that scoring reaches, and -log likelihood there [B]."""
    data = whiten(scenes).to(torch.complex128)
    end, _ = score(data, positions, active, search, steps=STEPS)
    slots = active.shape[1]
    return end.point[:, : 3 * slots].unflatten(-1, (slots, 3)), end.value


def beaten(scenes: Scenes, found: Estimates, best: Explanation, scene: SceneConfig) -> Tensor:
    """Return True for scenes that the best places explain significantly better: [B].

    Twice the log likelihood must grow by more than `LEAST_RATIO`, as for a further source.
    """
    search = search_grid(scene, torch.float32, scenes.snapshots.device)
    slots = best.positions.shape[1]
    data = whiten(scenes).to(torch.complex128)
    positions, active = found.positions[:, :slots], found.active[:, :slots]
    at_estimates, _ = score(data, positions, active, search, steps=0)
    return 2 * (at_estimates.value - best.value) > LEAST_RATIO


def too_many(misfits: int, scenes: int) -> bool:
    """Return whether so many misfits are more than chance gives scenes of the law, at 1 %."""
    return misfits > 0 and bool(bdtrc(misfits - 1, scenes, LEVEL) < LEVEL + 1e-9)


def fit_badly(p_values: NDArray[np.float32]) -> bool:
    """Return whether scenes of these p values fit worse, taken together, than chance explains.

    Fisher's method: under the law -2 sum log p is χ² with two degrees of freedom for each scene,
    or less where the tests are conservative.
    """
    score = -2 * np.log(np.maximum(p_values.astype(np.float64), 1e-300)).sum()
    return len(p_values) > 1 and bool(chdtrc(2 * len(p_values), score) < TOGETHER)


def reverse_phase(scenes: Scenes) -> Scenes:
    """Return the scenes as a reader of the other phase sign would give them."""
    shape = scenes.noise_covariance
    return replace(
        scenes,
        snapshots=scenes.snapshots.conj().resolve_conj(),
        channel=scenes.channel.conj().resolve_conj(),
        codes=scenes.codes.conj().resolve_conj(),
        noise_covariance=None if shape is None else shape.conj().resolve_conj(),
    )


def _mirror(positions: Tensor) -> Tensor:
    """Return the places [B, K, 3] whose planar waves have the other phase sign."""
    return positions * positions.new_tensor([-1.0, -1.0, 1.0])


def _higher(one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return, scene by scene, the positions and value of the higher likelihood."""
    better = other[1] < one[1]
    return torch.where(better[:, None, None], other[0], one[0]), torch.minimum(one[1], other[1])


def _explain(
    scenes: Scenes,
    best: Tensor,
    value: Tensor,
    active: Tensor,
    against: Tensor,
    search: SearchGrid,
) -> Explanation:
    """Return the explanation by positions [B, K, 3], the sign judged by D.

    Args:
        value, against: -log likelihood there, and that of the other phase sign, [B].
    """
    gain = (value - against).nan_to_num(0)
    fit = goodness_of_fit(scenes, best, active, search)
    p_value = _least(fit.p_value, (-gain).sigmoid())
    nan = torch.full_like(gain, torch.nan)
    scale = fit.scale, fit.scale_std
    return Explanation(best, fit.explained, fit.p_value, p_value, value, gain, nan, *scale)


def _least(residual_p: Tensor, sign_p: Tensor) -> Tensor:
    """Return the p value of both tests, weighted by their shares of `LEVEL`, [B]."""
    residual, sign = residual_p / (LEVEL - SIGN_LEVEL), sign_p / SIGN_LEVEL
    return (LEVEL * torch.minimum(residual, sign)).clamp(max=1)
