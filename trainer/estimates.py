"""What every estimator hands out."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class Estimates:
    """Estimated sources, [B, K_max] each; slots beyond a scene's number of sources are inactive.

    Attributes:
        azimuth, elevation, range_m: [rad, rad, m]; always finite: a best guess where a source was
            not resolved, the region's centre in an inactive slot.
        resolved: the estimator vouches for this source: it is a separate optimum.
        active: slots that were asked for.
        source_numbers: how many sources the same data suggest, by rule (`source_number`), [B]
            each; empty if nobody asked.
    """

    azimuth: Tensor
    elevation: Tensor
    range_m: Tensor
    resolved: Tensor
    active: Tensor
    source_numbers: Mapping[str, Tensor] = field(default_factory=dict)
