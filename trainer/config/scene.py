"""The panel, the base station, and the distribution of scenes."""

import math
from dataclasses import dataclass

from .rules import (
    ConfigError,
    require,
    require_choice,
    require_counts,
    require_fields,
    require_finite,
)

CODE_KINDS = ("random", "dft", "dft2")
ROUNDING = 1e-9
"""Least wavelengths per spacing that fall short of a limit by more than rounding."""


@dataclass(frozen=True)
class SceneConfig:
    """Panel, base station, and the distribution of sources, channel, codes and noise.

    Attributes:
        num_horizontal, num_vertical: elements per row and column; N = their product.
        num_antennas: M, at the base station.
        num_snapshots: L.
        wavelength_m, spacing_m: carrier wavelength and element spacing [m]; without grating lobes
            in front of the panel: spacing <= wavelength / (1 + sin of the largest angle), for
            azimuth if there is more than one column, for elevation if more than one row.
        max_sources: K of each scene is drawn uniformly in 1 ... max_sources.
        azimuth_max_deg, elevation_max_deg: sources lie within ± these [deg].
        range_min_m, range_max_m: limits of the distance from the panel's centre [m], uniform.
        rician_db: ratio of line-of-sight to scattered power in the channel H [dB].
        code_kind: RIS codes: `random` phases, rows of the `dft`, or of the two-dimensional one.
        code_bits: phase resolution of random codes; 0 is continuous.
        power_spread_db: source powers are drawn within ± half of this [dB]; 0 is equal powers.
        source_correlation: correlation coefficient between any two sources, in [0, 1).
        noise_correlation: coefficient ρ of the noise covariance ρ^|i-j| over antennas; 0 is white.
    """

    num_horizontal: int = 6
    num_vertical: int = 6
    num_antennas: int = 12
    num_snapshots: int = 16
    wavelength_m: float = 0.3
    spacing_m: float = 0.15
    max_sources: int = 2
    azimuth_max_deg: float = 60.0
    elevation_max_deg: float = 30.0
    range_min_m: float = 0.5
    range_max_m: float = 3.0
    rician_db: float = 6.0
    code_kind: str = "random"
    code_bits: int = 0
    power_spread_db: float = 0.0
    source_correlation: float = 0.0
    noise_correlation: float = 0.0

    @property
    def num_elements(self) -> int:
        """N, the number of elements of the panel."""
        return self.num_horizontal * self.num_vertical

    @property
    def fraunhofer_m(self) -> float:
        """2 D² / wavelength [m], D the panel's diagonal (Balanis 2016, Antenna Theory, 2-59)."""
        diagonal = (self.num_horizontal - 1) ** 2 + (self.num_vertical - 1) ** 2
        return 2 * diagonal * self.spacing_m**2 / self.wavelength_m

    def __post_init__(self) -> None:
        require_counts(
            self, "num_horizontal", "num_vertical", "num_antennas", "num_snapshots", "max_sources"
        )
        lengths = ("wavelength_m", "spacing_m", "range_min_m")
        require_fields(
            self, lengths, lambda x: 0 < x < math.inf, "{} > 0, finite", "Give it in metres."
        )
        require(
            self.max_sources < self.num_elements,
            "max_sources < num_elements",
            f"max_sources={self.max_sources}, num_elements={self.num_elements}",
            "Use a larger panel or fewer sources.",
        )
        farthest = f"{max(self.fraunhofer_m, 2 * self.range_min_m):.3g}"
        require(
            self.range_max_m < math.inf,
            "range_max_m is finite",
            f"range_max_m={self.range_max_m}",
            f"Give {farthest} m (localise: --range-m {self.range_min_m:g} {farthest}): beyond the "
            "Fraunhofer distance 2 D² / wavelength all ranges look alike, and are called far.",
        )
        require(
            self.range_min_m < self.range_max_m,
            "range_min_m < range_max_m",
            f"range_min_m={self.range_min_m}, range_max_m={self.range_max_m}",
            "Swap or widen them.",
        )
        limits = ("azimuth_max_deg", "elevation_max_deg")
        in_front = "The panel sees the half space in front of it."
        require_fields(self, limits, lambda x: 0 < x < 90, "0 < {} < 90", in_front)
        self._require_no_grating_lobes()
        require_choice("scene.code_kind", self.code_kind, CODE_KINDS)
        off = "0 switches it off."
        require_fields(self, ("code_bits", "power_spread_db"), lambda x: x >= 0, "{} >= 0", off)
        require(
            self.code_bits == 0 or self.code_kind == "random",
            "code_bits == 0 unless code_kind == random",
            f"code_bits={self.code_bits}, code_kind={self.code_kind}",
            "DFT codes have their own phases.",
        )
        coefficients = ("source_correlation", "noise_correlation")
        require_fields(self, coefficients, lambda x: 0 <= x < 1, "0 <= {} < 1", "0 means none.")
        require_finite(self)

    def _require_no_grating_lobes(self) -> None:
        """Raise ConfigError if a source of the region and some other direction look alike.

        A beam at direction cosine u repeats at u ± wavelength / spacing (Van Trees 2002, Optimum
        Array Processing, section 2.4): no repetition lies in [-1, 1] for the largest u.
        """
        across = {"azimuth_max_deg": self.num_horizontal, "elevation_max_deg": self.num_vertical}
        needed = {
            limit: 1 + math.sin(math.radians(getattr(self, limit)))
            for limit, elements in across.items()
            if elements > 1
        }
        waves = self.wavelength_m / self.spacing_m
        broken = {limit: least for limit, least in needed.items() if waves < least - ROUNDING}
        if not broken:
            return
        # rounded down, so that the remedies hold as printed
        spacing = self.wavelength_m / max(broken.values())
        digits = 10 ** (3 - math.floor(math.log10(spacing)))
        remedy = f"spacing_m={math.floor(spacing * digits) / digits:g}"
        angle = math.floor(100 * math.degrees(math.asin(max(waves - 1, 0)))) / 100
        if angle > 0:
            flags = " ".join(
                f"--{limit.removesuffix('_max_deg')}-deg {angle:g}" for limit in broken
            )
            angles = " and ".join(f"{limit}={angle:g}" for limit in broken)
            remedy += f", or {angles} (localise: {flags})"
        raise ConfigError(
            f"`spacing_m <= wavelength_m / (1 + sin({' or '.join(broken)}))` must hold, but got "
            f"spacing_m={self.spacing_m}, wavelength_m={self.wavelength_m}, "
            f"{', '.join(f'{limit}={getattr(self, limit)}' for limit in broken)}. "
            f"Directions would look alike (grating lobes). Use {remedy}."
        )
