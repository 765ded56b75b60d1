"""The eigengap loss, and the differentiation of eigenvalues and projectors."""

from dataclasses import dataclass

from .flat import require_types
from .rules import require, require_choice, require_finite

DEFINITIONS = ("gap", "ratio", "energy", "leak", "subspace", "threshold", "count")
BACKEND_NAMES = ("auto", "gram", "exact", "eigh", "svd", "masked")
FAILURE_POLICIES = ("raise", "skip_sample", "proxy")

MARGIN_FIELDS = {
    "gap": "margin",
    **{d: f"margin_{d}" for d in ("ratio", "energy", "leak", "subspace")},
    "threshold": "threshold",
    "count": "temperature",
}
"""The field with the one number of each definition, most of which are margins."""


@dataclass(frozen=True)
class EigengapConfig:
    """The eigengap loss; `weight` 0 switches it off, and no margin may be set then.

    Attributes:
        weight: of the term in the total loss.
        definition: one of `DEFINITIONS` (docs/eigengap.md).
        margin: for `gap`, as a fraction of 1/K, the eigenvalue of K equal sources in a trace-1 R;
            in (0, 1].
        margin_ratio: for `ratio`, in (0, 1); tanh(ln10 · dB / 20) for a margin in dB.
        margin_energy: for `energy`, in (0, 1].
        margin_leak: for `leak`, the tolerated log1p(leak), >= 0.
        margin_subspace: for `subspace`, the tolerated 1 - ‖P_K U‖²_F / K, in [0, 1).
        threshold: for `threshold`, t of (l_K / l_1 - t)(l_{K+1} / l_1 - t), in (0, 1).
        temperature: for `count`, by which description lengths are divided, > 0.
        on_failure: policy for samples whose term or gradient is not finite.
    """

    weight: float = 0.0
    definition: str | None = None
    margin: float | None = None
    margin_ratio: float | None = None
    margin_energy: float | None = None
    margin_leak: float | None = None
    margin_subspace: float | None = None
    threshold: float | None = None
    temperature: float | None = None
    on_failure: str = "raise"

    @property
    def active_margin(self) -> float:
        """The margin, threshold or temperature of the chosen definition."""
        assert self.definition is not None, "no margin without a definition"
        value: float = getattr(self, MARGIN_FIELDS[self.definition])
        return value

    def __post_init__(self) -> None:
        require_types(self)
        require_finite(self)
        off = "0 switches the term off."
        require(self.weight >= 0, "eigengap.weight >= 0", f"{self.weight}", off)
        require_choice("eigengap.on_failure", self.on_failure, FAILURE_POLICIES)
        given = {d for d in DEFINITIONS if getattr(self, MARGIN_FIELDS[d]) is not None}
        if self.weight == 0:
            require(
                self.definition is None and not given,
                "no eigengap.definition or margin without eigengap.weight > 0",
                f"weight=0, definition={self.definition}, margins of {sorted(given)}",
                "Drop them, or give the term a weight.",
            )
            return
        require_choice("eigengap.definition", self.definition, DEFINITIONS)
        assert self.definition is not None
        name = f"eigengap.{MARGIN_FIELDS[self.definition]}"
        require(
            given == {self.definition},
            f"exactly {name} is given for definition {self.definition}",
            f"margins of {sorted(given) or 'none'}",
            f"Set {name} and drop the others.",
        )
        value = self.active_margin
        open_at_zero = self.definition not in ("leak", "subspace")
        require(
            value > 0 if open_at_zero else value >= 0,
            f"{name} {'>' if open_at_zero else '>='} 0",
            f"{value}",
            "A margin is never negative.",
        )
        if self.definition == "threshold":
            require(value < 1, f"{name} < 1", f"{value}", "At 1 it says nothing of one source.")
        elif self.definition not in ("leak", "count"):
            require(value <= 1, f"{name} <= 1", f"{value}", "This definition lives in [0, 1].")


@dataclass(frozen=True)
class SpectralConfig:
    """The backend that differentiates eigenvalues and projectors.

    Attributes:
        backend: a name in `trainer.spectral.BACKENDS`, or `auto`.
        deg_thresh: for `masked`: pairs closer than this fraction of the largest eigenvalue are
            left out of derivatives.
    """

    backend: str = "auto"
    deg_thresh: float | None = None

    def __post_init__(self) -> None:
        require_types(self)
        require_choice("spectral.backend", self.backend, BACKEND_NAMES)
        require(
            (self.deg_thresh is not None) == (self.backend == "masked"),
            "spectral.deg_thresh is given exactly for spectral.backend == masked",
            f"deg_thresh={self.deg_thresh}, backend={self.backend}",
            "Drop the threshold, or choose masked.",
        )
        if self.deg_thresh is not None:
            inside = 0 < self.deg_thresh < 1
            relative = "It is relative; try 1e-6."
            require(inside, "0 < deg_thresh < 1", f"{self.deg_thresh}", relative)
