"""The network, and how its covariance meets the measured one."""

from dataclasses import dataclass

from .rules import require, require_choice, require_counts

NETWORK_KINDS = ("dictionary", "factor", "unrolled")


@dataclass(frozen=True)
class NetworkConfig:
    """Which network predicts the covariance, and its size.

    Attributes:
        kind: `dictionary` (power map -> softmax powers of a steering dictionary, dense R),
            `unrolled` (likelihoods of a lone source and power map -> such powers, then learned
            steps of covariance fitting) or `factor` (power map -> low-rank factor F, R = F Fᴴ).
        width: channels of the convolutions.
        depth: number of 3x3 convolutions.
        rank: columns of the learned factor; only for `factor`.
        stages: learned steps; only for `unrolled`.
    """

    kind: str = "dictionary"
    width: int = 32
    depth: int = 3
    rank: int | None = None
    stages: int | None = None

    def __post_init__(self) -> None:
        require_choice("network.kind", self.kind, NETWORK_KINDS)
        require_counts(self, "width", "depth")
        require(
            (self.rank is not None) == (self.kind == "factor"),
            "network.rank is given exactly for network.kind == factor",
            f"rank={self.rank}, kind={self.kind}",
            "Drop the rank, or choose the factor network.",
        )
        if self.rank is not None:
            require(self.rank >= 1, "rank >= 1", f"rank={self.rank}", "8 or more learns well.")
        require(
            (self.stages is not None) == (self.kind == "unrolled"),
            "network.stages is given exactly for network.kind == unrolled",
            f"stages={self.stages}, kind={self.kind}",
            "Drop the stages, or choose the unrolled network.",
        )
        if self.stages is not None:
            require(self.stages >= 1, "stages >= 1", f"stages={self.stages}", "2 to 4 learn well.")


@dataclass(frozen=True)
class CovarianceConfig:
    """How the network's covariance meets the measured one.

    Attributes:
        blend_bound: upper bound in [0, 1) of the learned weight b of the back-projected sample
            covariance in R = (1 - b) R_network + b R_measured; 0 switches the blend off. Only the
            factor network blends.
    """

    blend_bound: float | None = None

    def __post_init__(self) -> None:
        require(
            self.blend_bound is None or 0 <= self.blend_bound < 1,
            "0 <= blend_bound < 1",
            f"blend_bound={self.blend_bound}",
            "0 switches the blend off.",
        )
