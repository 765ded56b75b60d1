"""The network, and the blend of its covariance with the measured one."""

import math
from dataclasses import dataclass, field

from .flat import Arguments, require_types
from .rules import is_reference, require, require_choice, require_counts, require_reference

NETWORK_KINDS = ("dictionary", "factor", "unrolled", "gram")
NORMALISATIONS = ("before", "after")


@dataclass(frozen=True)
class NetworkConfig:
    """The kind and size of the network that predicts the covariance.

    Attributes:
        kind: `dictionary` (power map -> softmax powers of a steering dictionary, dense R),
            `unrolled` (power map and likelihoods of a single source -> such powers, then learned
            steps of covariance fitting), `factor` (power map -> low-rank factor F, R = F Fᴴ) or
            `gram` (measured covariance -> free factor G, R = G Gᴴ + floor, dense R); or the
            reference of a user's, `file.py:name` or `package.module:name`.
        width: channels of the convolutions.
        depth: number of 3x3 convolutions.
        rank: columns of the learned factor; only for `factor`.
        stages: learned steps; only for `unrolled`.
        noise_floor: smallest noise that the network assumes, relative to the signal at the
            antennas, halved from stage to stage; only for `unrolled`. None: none, so that it is
            not to be used above the SNRs of its training.
        normalisation: of G, `before` or `after` the product G Gᴴ; only for `gram`.
        planes: range planes that the convolutions have channels for. None: as many as the
            dictionary has; given where weights serve a panel or a region with other ones.
        sha256: of a user's code, which is refused if it is another; None if it may change.
        args: keyword arguments of a user's network, `network.args.<name>`.
    """

    kind: str = "dictionary"
    width: int = 32
    depth: int = 3
    rank: int | None = None
    stages: int | None = None
    noise_floor: float | None = None
    normalisation: str | None = None
    planes: int | None = None
    sha256: str | None = None
    args: Arguments = field(default_factory=Arguments)

    def __post_init__(self) -> None:
        require_types(self)
        if not is_reference(self.kind):
            require_choice("network.kind", self.kind, (*NETWORK_KINDS, "file.py:name"))
        require_reference("network", self.kind, self.sha256, self.args)
        require_counts(self, "width", "depth")
        for name, kind, usual in (
            ("rank", "factor", "8 or more learns well."),
            ("stages", "unrolled", "2 to 4 learn well."),
        ):
            value = getattr(self, name)
            require(
                (value is not None) == (self.kind == kind),
                f"network.{name} is given exactly for network.kind == {kind}",
                f"{name}={value}, kind={self.kind}",
                f"Drop the {name}, or choose the {kind} network.",
            )
            require(value is None or value >= 1, f"{name} >= 1", f"{name}={value}", usual)
        require(
            (self.normalisation is not None) == (self.kind == "gram"),
            "network.normalisation is given exactly for network.kind == gram",
            f"normalisation={self.normalisation}, kind={self.kind}",
            "Drop it, or choose the gram network with `before` or `after`.",
        )
        if self.normalisation is not None:
            require_choice("network.normalisation", self.normalisation, NORMALISATIONS)
        require(
            self.planes is None or self.planes >= 1,
            "network.planes >= 1",
            f"planes={self.planes}",
            "Leave it out for those of the dictionary.",
        )
        floor = self.noise_floor
        require(
            floor is None or self.kind == "unrolled",
            "network.noise_floor is given only for network.kind == unrolled",
            f"noise_floor={floor}, kind={self.kind}",
            "Drop the noise floor, or choose the unrolled network.",
        )
        require(
            floor is None or 0 < floor < math.inf,
            "0 < noise_floor < inf",
            f"noise_floor={floor}",
            "0.4, 4 dB below the signal, works well.",
        )


@dataclass(frozen=True)
class CovarianceConfig:
    """The blend of the network's covariance with the measured one.

    Attributes:
        blend_bound: upper bound in [0, 1) of the learned weight b of the back-projected sample
            covariance in R = (1 - b) R_network + b R_measured; 0 switches the blend off. Only the
            factor network blends.
    """

    blend_bound: float | None = None

    def __post_init__(self) -> None:
        require_types(self)
        require(
            self.blend_bound is None or 0 <= self.blend_bound < 1,
            "0 <= blend_bound < 1",
            f"blend_bound={self.blend_bound}",
            "0 switches the blend off.",
        )
