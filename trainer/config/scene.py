"""The panel, the base station, and the distribution of scenes."""

import functools
import itertools
import math
from dataclasses import dataclass

from .flat import require_types
from .rules import (
    ConfigError,
    require,
    require_choice,
    require_counts,
    require_fields,
    require_finite,
)
from .units import unit_hint

CODE_KINDS = ("random", "dft", "dft2")
ROUNDING = 1e-9
"""Least wavelengths per spacing that fall short of a limit by more than rounding."""
MOST_ELEMENTS = 100_000
"""Elements of a panel whose channel fits into memory."""
MOST_BITS = 16
"""Bits of a phase, more than panels have and far from rounding."""

Positions = tuple[tuple[float, float], ...]
"""(h, v), right and up, of every element [m]."""


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
        positions_m: (h, v) of every element [m], from the point that places refer to; None for the
            lattice, centred there. With it num_horizontal is N, num_vertical 1, and spacing_m the
            least distance between two elements.
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
    positions_m: Positions | None = None

    @property
    def num_elements(self) -> int:
        """N, the number of elements of the panel."""
        return self.num_horizontal * self.num_vertical

    @property
    def layout(self) -> str:
        """The elements of the panel, in words: columns x rows, or how many are placed."""
        if self.positions_m is not None:
            return f"{self.num_elements} placed"
        return f"{self.num_horizontal}x{self.num_vertical}"

    @property
    def aperture_m(self) -> tuple[float, float]:
        """Width and height of the panel, half a spacing beyond its outermost elements [m]."""
        if self.positions_m is None:
            return self.num_horizontal * self.spacing_m, self.num_vertical * self.spacing_m
        across, up = zip(*self.positions_m, strict=True)
        return max(across) - min(across) + self.spacing_m, max(up) - min(up) + self.spacing_m

    @property
    def beams(self) -> tuple[float, float]:
        """Numbers of half wavelengths in width and height, for a lattice those of its elements."""
        if self.positions_m is None:
            return self.num_horizontal, self.num_vertical
        width, height = self.aperture_m
        return 2 * width / self.wavelength_m, 2 * height / self.wavelength_m

    @property
    def reach_squared(self) -> float:
        """Largest squared distance of an element from the point that places refer to [m²]."""
        if self.positions_m is None:
            corner = ((self.num_horizontal - 1) ** 2 + (self.num_vertical - 1) ** 2) / 4
            return corner * self.spacing_m**2
        return max(h**2 + v**2 for h, v in self.positions_m)

    @property
    def fraunhofer_m(self) -> float:
        """2 D² / wavelength [m], D the panel's diagonal (Balanis 2016, Antenna Theory, 2-59)."""
        return 8 * self.reach_squared / self.wavelength_m

    def __post_init__(self) -> None:
        require_types(self)
        require_counts(
            self, "num_horizontal", "num_vertical", "num_antennas", "num_snapshots", "max_sources"
        )
        require(
            self.num_elements <= MOST_ELEMENTS,
            f"num_horizontal * num_vertical <= {MOST_ELEMENTS}",
            f"{self.num_horizontal} * {self.num_vertical}",
            "Use a smaller panel.",
        )
        lengths = ("wavelength_m", "spacing_m", "range_min_m")
        metres = "Give it in metres, e.g. 0.5."
        require_fields(self, lengths, lambda x: 0 < x < math.inf, "{} > 0, finite", metres)
        require(
            self.max_sources < self.num_elements,
            "max_sources < num_elements",
            f"max_sources={self.max_sources}, num_elements={self.num_elements}",
            "Use a larger panel or fewer sources.",
        )
        if self.positions_m is not None:
            self._require_positions(self.positions_m)
        farthest = f"{max(1000 * self.fraunhofer_m, 2 * self.range_min_m):g}"
        require(
            self.range_max_m < math.inf,
            "range_max_m is finite",
            f"range_max_m={self.range_max_m}",
            f"Give {farthest} m (localise: --range-m {self.range_min_m:g} {farthest}): a thousand "
            "times the Fraunhofer distance 2 D² / wavelength, where ranges become far.",
        )
        require(
            self.range_min_m < self.range_max_m,
            "range_min_m < range_max_m",
            f"range_min_m={self.range_min_m}, range_max_m={self.range_max_m}",
            "Swap or widen them.",
        )
        limits = ("azimuth_max_deg", "elevation_max_deg")
        in_front = "The panel sees the half space in front of it: give 1 to 85."
        require_fields(self, limits, lambda x: 0 < x < 90, "0 < {} < 90", in_front)
        if self.positions_m is None:  # else, `search_grid` looks for directions that look alike
            self._require_no_grating_lobes()
        require_choice("scene.code_kind", self.code_kind, CODE_KINDS)
        off = "0 switches it off."
        require_fields(self, ("code_bits", "power_spread_db"), lambda x: x >= 0, "{} >= 0", off)
        finest = "Finer phases are continuous: 0."
        require(
            self.code_bits <= MOST_BITS, f"code_bits <= {MOST_BITS}", f"{self.code_bits}", finest
        )
        require(
            self.code_bits == 0 or self.code_kind == "random",
            "code_bits == 0 unless code_kind == random",
            f"code_bits={self.code_bits}, code_kind={self.code_kind}",
            "DFT codes have their own phases.",
        )
        coefficients = ("source_correlation", "noise_correlation")
        require_fields(self, coefficients, lambda x: 0 <= x < 1, "0 <= {} < 1", "0 means none.")
        require_finite(self)

    def _require_positions(self, positions: Positions) -> None:
        pairs = all(len(p) == 2 and all(map(math.isfinite, p)) for p in positions)
        require(pairs, "positions_m are finite pairs", "others", "Give (right, up) in metres.")
        require(
            self.num_elements == len(positions),
            "num_horizontal * num_vertical == len(positions_m)",
            f"{self.num_horizontal} * {self.num_vertical}, {len(positions)} positions",
            f"Give num_horizontal={len(positions)}, num_vertical=1.",
        )
        least = least_distance(positions)
        require(
            abs(self.spacing_m - least) <= ROUNDING * least,
            "spacing_m is the least distance between positions_m",
            f"spacing_m={self.spacing_m}",
            f"Give spacing_m={least!r}.",
        )

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
        closer = f"spacing_m={math.floor(spacing * digits) / digits:g}, to simulate"
        remedy = f"{closer}; no region makes a recording with this panel unambiguous"
        angle = math.floor(100 * math.degrees(math.asin(max(waves - 1, 0)))) / 100
        if angle > 0:
            flags = " ".join(
                f"--{limit.removesuffix('_max_deg')}-deg {angle:g}" for limit in broken
            )
            angles = " and ".join(f"{limit}={angle:g}" for limit in broken)
            remedy = f"{angles} (localise: {flags}), or {closer}"
        hint = unit_hint(self.spacing_m, self.wavelength_m)
        raise ConfigError(
            f"`spacing_m <= wavelength_m / (1 + sin({' or '.join(broken)}))` must hold, but got "
            f"spacing_m={self.spacing_m}, wavelength_m={self.wavelength_m}, "
            f"{', '.join(f'{limit}={getattr(self, limit)}' for limit in broken)}. "
            f"Directions would look alike (grating lobes). Use {remedy}." + (hint and f" {hint}")
        )


@functools.lru_cache(maxsize=16)  # pairs of elements, once for every panel
def least_distance(positions: Positions) -> float:
    """Return the least distance between two elements [m]; inf for one alone."""
    return min(
        (math.dist(a, b) for a, b in itertools.combinations(positions, 2)), default=math.inf
    )
