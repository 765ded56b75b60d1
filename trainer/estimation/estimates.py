"""The result of every estimator, and the checks of an estimate that all estimators share.

An estimate is *separate* if it is finite and not a repetition of an earlier one; scores count
these, right or wrong. It is *resolved* if, in addition, it passes three tests:

    interior      its direction lies inside the region, not at an edge where the search was
                  stopped. Range may lie at an edge: a panel that hardly measures curvature says
                  little about it.
    significance  noise alone would hardly have produced it:
                  music, mvdr, beamformer   the K-th eigenvalue exceeds the smallest by more than
                        roundoff, and the share of its steering vector, less the other sources',
                        in the signal subspace exceeds what a random subspace reaches anywhere on
                        the grid in one of 100 scenes (`pseudospectra.is_significant`)
                  sml, +scoring   twice the log likelihood that the source adds exceeds
                        `LEAST_RATIO`, the others fitted again without it: two estimates of one
                        source are not both resolved
                  posterior   it more likely than not has a source of its own
                        (`trainer.posterior.readout`)

    identifiable  the data tell both angles (`uncertainty`)
                  music, mvdr, beamformer   the panel alone would, at 60 dB: a covariance does not
                        say what it was measured from
                  sml, +scoring   the Fisher information of the scene's snapshots does

A covariance that was itself fitted with steering vectors (sparse, or a network's) always has some
in its signal subspace, so the share means little there; use `+scoring`. Snapshots that are all
zero resolve nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from trainer.scenes import SearchGrid

LEAST_RATIO = 18.467
"""Threshold of 2 Δ log likelihood: `scipy.stats.chi2.ppf(0.999, 4)`, of a position and a power."""
ORIGINS = ("covariance", "scoring", "search")
"""Where judged places come from: the peaks of the covariance, Fisher scoring from there, or a
further search of the likelihood (`fisher_scoring.judge_by_likelihood`)."""
SAME_SOURCE = 0.95
"""Positions whose steering vectors correlate by more than this are one source."""
EDGE_MARGIN = 1e-6
"""Share of the region's width that counts as its edge."""


@dataclass(frozen=True)
class Estimates:
    """Estimated sources, [B, K_max] each; slots beyond a scene's number of sources are inactive.

    Attributes:
        azimuth, elevation, range_m: [rad, rad, m]; always finite: a best guess where a source was
            not resolved, the region's centre in an inactive slot.
        resolved: estimates that are separate, interior, significant and identifiable (module
            docstring).
        active: slots that were asked for.
        source_numbers: K by every rule of `source_number.SOURCE_NUMBERS`, [B] each; empty if not
            asked for.
        separate: estimates that scores count; by default those resolved.
        origin: what a scene's places are, a number of `ORIGINS`, [B]; None if nothing judged.
    """

    azimuth: Tensor
    elevation: Tensor
    range_m: Tensor
    resolved: Tensor
    active: Tensor
    source_numbers: Mapping[str, Tensor] = field(default_factory=dict)
    separate: Tensor | None = None
    origin: Tensor | None = None

    @property
    def scored(self) -> Tensor:
        """Active slots with a separate estimate, [B, K_max]."""
        return (self.resolved if self.separate is None else self.separate) & self.active

    @property
    def positions(self) -> Tensor:
        """Positions in the coordinates of `SearchGrid`, [B, K_max, 3]."""
        return torch.stack([self.azimuth, self.elevation, 1 / self.range_m], dim=-1)


def make_estimates(
    positions: Tensor,
    active: Tensor,
    separate: Tensor,
    resolved: Tensor,
    search: SearchGrid,
    slots: int,
    source_numbers: Mapping[str, Tensor] | None = None,
) -> Estimates:
    """Return positions [B, K, 3] as estimates with `slots` columns, inactive ones at the centre.

    Raises:
        ValueError: if there are fewer slots than active sources.
    """
    if int(active.sum(-1).max()) > slots:
        raise ValueError(
            f"`slots >= num_sources` must hold, but got {slots=}, "
            f"num_sources up to {int(active.sum(-1).max())}. Ask for more slots."
        )
    more = slots - active.shape[-1]
    active, separate, resolved = (
        functional.pad(x, (0, more)) for x in (active, separate, resolved)
    )
    positions = functional.pad(positions, (0, 0, 0, more))
    centre = (search.lower + search.upper) / 2
    positions = torch.where(active.unsqueeze(-1), positions, centre)
    azimuth, elevation, inverse_range = positions.unbind(-1)
    return Estimates(
        azimuth, elevation, 1 / inverse_range, resolved, active, source_numbers or {}, separate
    )


def is_repetition(steering: Tensor, active: Tensor) -> Tensor:
    """Return True for estimates at the position of an earlier one: [B, K, N] -> [B, K]."""
    both = active.unsqueeze(-1) & active.unsqueeze(-2)
    return (is_same_source(steering) & both).tril(-1).any(-1)


def is_same_source(steering: Tensor) -> Tensor:
    """Return True for pairs of estimates that are one source: [B, K, N] -> [B, K, K]."""
    return (steering.conj() @ steering.mT).abs() > SAME_SOURCE * steering.shape[-1]


def edges(positions: Tensor, search: SearchGrid) -> tuple[Tensor, Tensor]:
    """Return which coordinates [B, K, 3] are not strictly above, and below, the region's edges."""
    # the margin absorbs the rounding of an edge to another precision
    margin = EDGE_MARGIN * (search.upper - search.lower)
    return positions <= search.lower + margin, positions >= search.upper - margin


def is_interior(positions: Tensor, search: SearchGrid) -> Tensor:
    """Return True for positions [B, K, 3] with a direction strictly inside the region: [B, K]."""
    low, high = edges(positions, search)
    return ~(low | high)[..., :2].any(-1)
