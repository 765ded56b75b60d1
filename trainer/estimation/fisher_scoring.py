"""Fisher scoring on the snapshots, from estimates that are already close.

MUSIC estimates positions from a covariance, which does not keep how precisely each snapshot
determines them. From a start in the basin of the maximum, scoring on the likelihood of the
snapshots leads to the efficient estimate, most of the way in the first steps (Lehmann and Casella
1998, Theory of Point Estimation, section 6.4), at a tenth of the cost of searching for it. The
start decides on the basin, so below threshold, where the highest peak of the likelihood misleads,
a good start is kept. The steps are few, because there a network's start beats the maximum.

Powers and noise start from least squares at the given positions. Where these are off, the
unexplained part counts as noise, and steps are short.
"""

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from trainer.covariance import Whitened, whiten
from trainer.linalg import squared_magnitude, squared_norm
from trainer.scenes import Scenes, SearchGrid, respond

from .estimates import LEAST_RATIO, Estimates, is_interior, is_repetition
from .levenberg_marquardt import Minimum, minimise
from .likelihood import Likelihood
from .maximum_likelihood import likelihood_ratio, noise_only_start, search_again
from .uncertainty import LARGEST_SNR, Uncertainty, region_limited

STEPS = 2
"""Of 0, 1, 2 and 4 steps, two have the least capped error at -5 and 0 dB: see docs/log.md."""
REFIT_STEPS = 8
"""Steps of the other sources after one is removed, to see whether they replace it: two estimates
of a network may lie on both sides of a source, some degrees away."""
RIDGE = 1e-9
"""Relative ridge of Gram matrices, for two estimates at one position."""
TRUSTED_DEG = 5.0
"""Largest standard deviation of an angle at which a peak of the likelihood beats a posterior
mean: the tolerance of a success, half the cap of the error (docs/network.md)."""
HOPELESS_DEG = 10.0
"""Standard deviation after scoring beyond which another search hardly finds a trusted place."""
LEAST_SHARE = 0.1
"""Smallest share of a source's least-squares power that is not attributed to noise."""


@torch.no_grad()
def refine_by_fisher_scoring(
    scenes: Scenes, estimates: Estimates, search: SearchGrid, *, steps: int = STEPS
) -> Estimates:
    """Return the estimates after `steps` of scoring, computed in double precision.

    Estimates of scenes with zero snapshots or a zero channel do not move and are not resolved.
    """
    slots = max(int(estimates.active.sum(-1).max()), 1)
    active, positions = estimates.active[:, :slots], estimates.positions
    data = whiten(scenes).to(torch.complex128)
    fitted, energy = score(data, positions[:, :slots], active, search, steps=steps)
    everywhere = torch.ones_like(active[:, 0])
    return _moved(estimates, data, fitted, energy, everywhere, search)


@torch.no_grad()
def judge_by_likelihood(scenes: Scenes, estimates: Estimates, search: SearchGrid) -> Estimates:
    """Return the estimates, moved where the likelihood is to be trusted; double precision.

    Places are scored, and searched again where that leaves something to find (`search_again`). A
    place of higher likelihood is taken where the Fisher information there bounds every source's
    angle to `TRUSTED_DEG`: above threshold. Below, the estimates stay where they are, since a
    posterior mean errs less than a peak of the likelihood. `Estimates.origin` says which it was.

    Estimates of scenes with zero snapshots or a zero channel do not move and are not resolved.
    """
    slots = max(int(estimates.active.sum(-1).max()), 1)
    active = estimates.active[:, :slots]
    data = whiten(scenes).to(torch.complex128)
    scored, energy = score(data, estimates.positions[:, :slots], active, search, steps=STEPS)
    spread = largest_angle_deviation(scored, active, search)
    again, searched = search_again(data, scored, active, spread < HOPELESS_DEG, search)
    found = searched & (again.value < scored.value)
    found = found & (largest_angle_deviation(again, active, search) < TRUSTED_DEG)
    fitted = again.where(found, scored)
    places = fitted.point[:, : 3 * slots].unflatten(-1, (slots, 3))
    *_, energy = least_squares_powers(data, places, active, search)
    moves = found | (spread < TRUSTED_DEG)
    moved = _moved(estimates, data, fitted, energy, moves, search)
    return replace(moved, origin=found.long() + moves.long())


def largest_angle_deviation(fitted: Minimum, active: Tensor, search: SearchGrid) -> Tensor:
    """Return the largest standard deviation of an active source's angle at a fit, [B] [deg]."""
    variance = region_limited(fitted.curvature, search, active.shape[1]).variance
    return (variance[..., :2].sum(-1) * active).amax(-1).sqrt().rad2deg()


def _moved(
    estimates: Estimates,
    data: Whitened,
    fitted: Minimum,
    energy: Tensor,
    moves: Tensor,
    search: SearchGrid,
) -> Estimates:
    """Return the estimates of scenes that move [B] at the places of a fit, resolved by it."""
    slots = (fitted.point.shape[-1] - 1) // 4
    active, positions = estimates.active[:, :slots], estimates.positions
    moved = fitted.point[:, : 3 * slots]
    known = region_limited(fitted.curvature, search, slots).identifiable
    more = estimates.active.shape[1] - slots
    moved = functional.pad(moved.unflatten(-1, (slots, 3)), (0, 0, 0, more)).to(positions)
    measured = (data.snapshots != 0).any((1, 2)) & (data.channel != 0).any((1, 2))
    measured = measured.unsqueeze(-1)
    moving = estimates.active & moves.unsqueeze(-1) & measured & torch.isfinite(moved).all(-1)
    positions = torch.where(moving.unsqueeze(-1), moved, positions)
    azimuth, elevation, inverse_range = positions.unbind(-1)
    distinct = ~is_repetition(search.response(positions), estimates.active)
    significant = _each_adds(data, fitted, energy, active, search)
    significant = functional.pad(significant & known, (0, more))
    interior = is_interior(positions, search)
    return replace(
        estimates,
        azimuth=azimuth,
        elevation=elevation,
        range_m=1 / inverse_range,
        resolved=estimates.scored & measured & significant & interior & distinct,
        separate=estimates.scored,
    )


@torch.no_grad()
def have_own_source(scenes: Scenes, estimates: Estimates, search: SearchGrid) -> Tensor:
    """Return the estimates that a source of their own supports, [B, K_max]; double precision.

    They are scored first, so that what scoring reaches counts. A lone estimate has no other that
    could take its place: whether there is a source at all is another question.
    """
    slots = max(int(estimates.active.sum(-1).max()), 1)
    supported = estimates.active.clone()
    several = (estimates.active.sum(-1) > 1).nonzero().flatten()
    if len(several):
        data = whiten(scenes.take(several)).to(torch.complex128)
        active, places = estimates.active[several, :slots], estimates.positions[several, :slots]
        fitted, _ = score(data, places, active, search, steps=REFIT_STEPS)
        at = fitted.point[:, : 3 * slots].unflatten(-1, (slots, 3))
        *_, energy = least_squares_powers(data, at, active, search)
        supported[several, :slots] = _each_adds(data, fitted, energy, active, search)
    return supported


def _each_adds(
    data: Whitened, fitted: Minimum, energy: Tensor, active: Tensor, search: SearchGrid
) -> Tensor:
    """Return the estimates that are significant even if the others move to replace them, [B, K].

    Of two estimates of one source, each is significant while the other is held fixed. The most
    significant one of a scene stays.

    Args:
        energy: of each source's response in a snapshot, averaged, [B, K].
    """
    slots = active.shape[1]
    places, powers, noise = fitted.point.split([3 * slots, slots, 1], dim=-1)
    # the likelihood ratio of a source with the others held fixed has a closed form
    ratio = (powers - noise).exp() * energy
    ratio = 2 * data.snapshots.shape[1] * (ratio - ratio.log1p()) * active
    # of a place told twice one is enough: it is not asked whether the other replaces it
    steering = search.response(places.unflatten(-1, (slots, 3)))
    ratio = ratio * ~is_repetition(steering, active)
    significant = ratio > LEAST_RATIO
    several = (significant.sum(-1) > 1).nonzero().squeeze(-1)
    if not len(several):
        return significant
    some, fit = Whitened(*(x[several] for x in data)), Minimum(*(x[several] for x in fitted))
    present, kept = active[several], significant[several]
    for removed in ratio[several].argsort(-1, descending=True).unbind(-1)[1:]:
        more = likelihood_ratio(some, fit, present, removed, search, steps=REFIT_STEPS)
        needed = kept.gather(1, removed.unsqueeze(1)) & (more > LEAST_RATIO).unsqueeze(1)
        kept = kept.scatter(1, removed.unsqueeze(1), needed)
    return significant.index_copy(0, several, kept)


@torch.no_grad()
def uncertainty(
    data: Whitened,
    positions: Tensor,
    active: Tensor,
    search: SearchGrid,
    *,
    snr: float | None = None,
) -> Uncertainty:
    """Return the variances of the sources of a scene at positions [B, K, 3], active [B, K].

    Args:
        data: in double precision.
        snr: of every source at the antennas, whatever the snapshots; by default powers and σ² of
            least squares.
    """
    powers, noise, energy = least_squares_powers(data, positions, active, search)
    tiny = torch.finfo(torch.float32).tiny
    level = squared_norm(data.snapshots) / data.snapshots[0].numel()
    if snr is None:
        noise = noise.maximum((level / LARGEST_SNR).clamp(min=tiny).log().unsqueeze(-1))
    else:
        powers = (snr * data.snapshots.shape[-1] / energy.clamp(min=tiny)).log()
        noise = torch.zeros_like(noise)
    unknowns = torch.cat([positions.flatten(1), powers, noise], dim=-1)
    likelihood = Likelihood(data, search, active)
    slots = positions.shape[1]
    information = likelihood.local_model(unknowns).curvature
    if snr is not None:
        return region_limited(information, search, slots)
    # silent snapshots tell nothing; nor do those that as many amplitudes as modes of the channel
    # explain at any place, which leaves nothing to take σ² from
    tells = (level > 0) & (active.sum(-1) < data.num_modes)
    information = information * tells[:, None, None]
    observed = likelihood.observed_information(unknowns) * tells[:, None, None]
    return region_limited(information, search, slots, observed)


def score(
    data: Whitened,
    positions: Tensor,
    active: Tensor,
    search: SearchGrid,
    *,
    steps: int,
    held: bool = False,
) -> tuple[Minimum, Tensor]:
    """Minimise the negative log likelihood from positions [B, K, 3] by Fisher scoring.

    Args:
        data: in double precision.
        held: whether places stay, and only powers and noise move.

    Returns:
        The unknowns of `Likelihood` [B, 4K + 1] with the value reached, and the energy of each
        source's response at the start (`least_squares_powers`).
    """
    _, lower, upper = noise_only_start(data, search, positions.shape[1])
    powers, noise, energy = least_squares_powers(data, positions.double(), active, search)
    places = positions.double().flatten(1)
    start = torch.cat([places, powers, noise], dim=-1)
    if held:
        lower, upper = (torch.cat([places, x[:, places.shape[1] :]], -1) for x in (lower, upper))
    model = Likelihood(data, search, active).local_model
    return minimise(model, start, lower, upper, steps=steps), energy


def least_squares_powers(
    data: Whitened, positions: Tensor, active: Tensor, search: SearchGrid
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log powers, log σ² and energies of a least-squares fit at positions [B, K, 3].

    σ² is the mean square of the residual per remaining dimension; a power is the mean square of
    the source's amplitudes, less their noise.

    Returns:
        log powers [B, K], log σ² [B, 1], and the energy of each source's response in a snapshot,
        averaged over snapshots [B, K].
    """
    steering = search.response(positions) * active.unsqueeze(-1)
    responses = respond(data.channel, data.codes, steering)  # [B, L, M, K]
    gram = responses.mH @ responses
    energy = gram.diagonal(dim1=-2, dim2=-1).real.mean(1)
    size = energy.mean(-1, keepdim=True)
    # slots without a source and dead channels have a zero Gram: any ridge gives amplitude zero
    present = active & (size > torch.finfo(size.dtype).tiny / RIDGE)
    ridge = torch.where(present, RIDGE * size, torch.ones_like(size)).unsqueeze(1)
    inverse = torch.linalg.inv(gram + torch.diag_embed(ridge).to(gram.dtype))
    matched = responses.mH @ data.snapshots.unsqueeze(-1)
    amplitudes = inverse @ matched
    residual = squared_norm(data.snapshots) - (matched.conj() * amplitudes).real.sum((1, 2, 3))
    dimensions = data.snapshots[0].numel() - data.snapshots.shape[1] * active.sum(-1)
    tiny = torch.finfo(torch.float32).tiny
    noise = (residual / dimensions.clamp(min=1)).clamp(min=tiny)
    variance = noise.unsqueeze(-1) * inverse.diagonal(dim1=-2, dim2=-1).real.mean(1)
    raw = squared_magnitude(amplitudes.squeeze(-1)).mean(1)
    powers = (raw - variance).maximum(LEAST_SHARE * raw).clamp(min=tiny)
    return powers.log(), noise.log().unsqueeze(-1), energy
