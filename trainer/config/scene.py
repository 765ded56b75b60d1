"""Panel, base station, sources, channel, codes and noise."""

from dataclasses import dataclass

from .rules import require, require_choice, require_counts

CODE_KINDS = ("random", "dft", "dft2")


@dataclass(frozen=True)
class SceneConfig:
    """Panel, base station, and the law that sources, channel, codes and noise are drawn from.

    Attributes:
        num_horizontal, num_vertical: elements per row and column; N = their product.
        num_antennas: M, at the base station.
        num_snapshots: L.
        wavelength_m, spacing_m: carrier wavelength and element spacing [m].
        max_sources: K is drawn uniformly in 1 ... max_sources, per scene.
        azimuth_max_deg, elevation_max_deg: sources lie within ± these [deg].
        range_min_m, range_max_m: distance from the panel's centre [m], drawn uniformly.
        rician_db: ratio of line-of-sight to scattered power in the channel H [dB].
        code_kind: RIS codes: random phases, DFT rows, or two-dimensional DFT rows.
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
        """N, the elements of the panel."""
        return self.num_horizontal * self.num_vertical

    def __post_init__(self) -> None:
        require_counts(
            self, "num_horizontal", "num_vertical", "num_antennas", "num_snapshots", "max_sources"
        )
        for name in ("wavelength_m", "spacing_m", "range_min_m"):
            require(
                getattr(self, name) > 0,
                f"{name} > 0",
                f"{name}={getattr(self, name)}",
                "Give it in metres.",
            )
        require(
            self.max_sources < self.num_elements,
            "max_sources < num_elements",
            f"max_sources={self.max_sources}, num_elements={self.num_elements}",
            "Use a larger panel or fewer sources.",
        )
        require(
            self.range_min_m < self.range_max_m,
            "range_min_m < range_max_m",
            f"range_min_m={self.range_min_m}, range_max_m={self.range_max_m}",
            "Swap or widen them.",
        )
        for name in ("azimuth_max_deg", "elevation_max_deg"):
            value = getattr(self, name)
            require(
                0 < value < 90,
                f"0 < {name} < 90",
                f"{name}={value}",
                "The panel sees the half space before it.",
            )
        require_choice("scene.code_kind", self.code_kind, CODE_KINDS)
        require(
            self.code_bits >= 0,
            "code_bits >= 0",
            f"code_bits={self.code_bits}",
            "0 means continuous phases.",
        )
        require(
            self.code_bits == 0 or self.code_kind == "random",
            "code_bits == 0 unless code_kind == random",
            f"code_bits={self.code_bits}, code_kind={self.code_kind}",
            "DFT codes have their own phases.",
        )
        require(
            self.power_spread_db >= 0,
            "power_spread_db >= 0",
            f"power_spread_db={self.power_spread_db}",
            "0 means equal powers.",
        )
        for name in ("source_correlation", "noise_correlation"):
            require(
                0 <= getattr(self, name) < 1,
                f"0 <= {name} < 1",
                f"{name}={getattr(self, name)}",
                "0 means none.",
            )
