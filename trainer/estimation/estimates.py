"""What every estimator hands out, and when it vouches for a source.

An estimate is *separate* if it is finite and not a repetition of an earlier one: that is what is
scored, whether right or a guess. It is *resolved* if moreover

    interior      its direction lies inside the region, not at an edge where the search was
                  stopped (range may: a panel that hardly sees curvature says little about it)
    standing out  from what noise alone would have given:
                  covariance methods  the K-th eigenvalue exceeds the least by more than roundoff,
                                      and the signal subspace holds more of its steering vector,
                                      less the other sources', than a random one would anywhere
                                      on the grid but once in 1 / `CHANCE` scenes: the share of a
                                      vector in K random dimensions is Beta(K, N - K)
                  sml, +scoring       twice the log likelihood that the source adds exceeds
                                      `LEAST_RATIO`, the 99.9 % quantile of chi-square with the
                                      four degrees of freedom of a place and a power; sml fits
                                      the others again without it, +scoring leaves them alone,
                                      and so vouches for both of two that share one source

A covariance that was itself fitted with steering vectors (sparse, a network's) always has some in
its signal subspace. There the share says little; `+scoring` asks the snapshots instead. Without
any signal at all, snapshots of zeros, nothing is resolved.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

CHANCE = 0.01
"""Of a random subspace, over all grid points together. Back-projected noise is not quite random:
it exceeds what this allows in about one place of thirty."""
LEAST_RATIO = 18.467
"""Of 2 Δ log likelihood; `scipy.stats.chi2.ppf(0.999, 4)`."""


@dataclass(frozen=True)
class Estimates:
    """Estimated sources, [B, K_max] each; slots beyond a scene's number of sources are inactive.

    Attributes:
        azimuth, elevation, range_m: [rad, rad, m]; always finite: a best guess where a source was
            not resolved, the region's centre in an inactive slot.
        resolved: the estimator vouches for this source; see above.
        active: slots that were asked for.
        source_numbers: how many sources the same data suggest, by rule (`source_number`), [B]
            each; empty if nobody asked.
        separate: estimates of their own, which scores count; by default those resolved.
    """

    azimuth: Tensor
    elevation: Tensor
    range_m: Tensor
    resolved: Tensor
    active: Tensor
    source_numbers: Mapping[str, Tensor] = field(default_factory=dict)
    separate: Tensor | None = None

    @property
    def scored(self) -> Tensor:
        """Active slots whose estimate counts as one, [B, K_max]."""
        return (self.resolved if self.separate is None else self.separate) & self.active
