"""What every estimator hands out."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Estimates:
    """Estimated sources, [B, K_max] each; slots beyond a scene's number of sources are inactive.

    Attributes:
        azimuth, elevation, range_m: [rad, rad, m]; always finite: a best guess where a source was
            not resolved, the region's centre in an inactive slot.
        resolved: the estimator vouches for this source: it is a separate optimum.
        active: slots that were asked for.
        source_number: the number of sources the same data suggest, [B]; None if nobody asked.
    """

    azimuth: Tensor
    elevation: Tensor
    range_m: Tensor
    resolved: Tensor
    active: Tensor
    source_number: Tensor | None = None
