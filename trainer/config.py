"""Frozen, validated training configurations; free of torch, so that a search can check them.

A configuration crosses the border to the trainer as a flat dict of dotted names
(`eigengap.weight`), is checked once in `__post_init__`, and is never changed afterwards. What does
not apply is absent (`None`), never silently ignored: a margin of a definition that is not used, or
a `deg_thresh` without the `masked` backend, is refused.
"""

import dataclasses
import difflib
import hashlib
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

DEFINITIONS = ("gap", "ratio", "energy", "leak", "subspace")
BACKEND_NAMES = ("auto", "gram", "exact", "eigh", "svd", "masked")
NETWORK_KINDS = ("dictionary", "factor", "unrolled")
CODE_KINDS = ("random", "dft", "dft2")
FAILURE_POLICIES = ("raise", "skip_sample", "proxy")

MARGIN_FIELDS = {d: "margin" if d == "gap" else f"margin_{d}" for d in DEFINITIONS}
"""Where each definition keeps its margin: `eigengap.margin`, `eigengap.margin_ratio`, ..."""


class ConfigError(ValueError):
    """A configuration that breaks a rule; the message has the rule, the value and the remedy."""


def require(holds: bool, rule: str, got: str, remedy: str) -> None:
    """Raises ConfigError unless `holds`."""
    if not holds:
        raise ConfigError(f"`{rule}` must hold, but got {got}. {remedy}")


def require_choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    """Raises ConfigError with a did-you-mean unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigError(
            f"`{name}` must be one of {', '.join(choices)}, but got {value!r}."
            + did_you_mean(str(value), choices)
        )


def did_you_mean(word: str, choices: typing.Iterable[str]) -> str:
    """' Did you mean `x`?' for the nearest choice, or an empty string."""
    near = difflib.get_close_matches(word, list(choices), n=1)
    return f" Did you mean `{near[0]}`?" if near else ""


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
        for name in (
            "num_horizontal",
            "num_vertical",
            "num_antennas",
            "num_snapshots",
            "max_sources",
        ):
            require(
                getattr(self, name) >= 1,
                f"{name} >= 1",
                f"{name}={getattr(self, name)}",
                "Use a positive count.",
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


@dataclass(frozen=True)
class NetworkConfig:
    """Which network predicts the covariance, and its size.

    Attributes:
        kind: `dictionary` (power map -> softmax powers of a steering dictionary, dense R),
            `unrolled` (the same, then learned steps of covariance fitting) or `factor` (power map
            -> low-rank factor F, R = F Fᴴ).
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
        for name in ("width", "depth"):
            require(
                getattr(self, name) >= 1,
                f"{name} >= 1",
                f"{name}={getattr(self, name)}",
                "Use a positive count.",
            )
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


@dataclass(frozen=True)
class EigengapConfig:
    """The eigengap loss term; `weight` 0 switches it off, and then nothing else may be set.

    Attributes:
        weight: factor of the term in the total loss.
        definition: gap | ratio | energy | leak | subspace (docs/eigengap.md).
        margin: for `gap`, as a fraction of 1/K, the eigenvalue of K equal sources in a trace-1 R;
            in (0, 1].
        margin_ratio: for `ratio`, in (0, 1); tanh(ln10 · dB / 20) for a margin in dB.
        margin_energy: for `energy`, in (0, 1].
        margin_leak: for `leak`, the tolerated log1p(leak), >= 0.
        margin_subspace: for `subspace`, the tolerated 1 - ‖P_K U‖²_F / K, in [0, 1).
        on_failure: what to do with a sample whose spectral term is not finite.
    """

    weight: float = 0.0
    definition: str | None = None
    margin: float | None = None
    margin_ratio: float | None = None
    margin_energy: float | None = None
    margin_leak: float | None = None
    margin_subspace: float | None = None
    on_failure: str = "raise"

    @property
    def active_margin(self) -> float:
        """The margin of the chosen definition."""
        assert self.definition is not None, "no margin without a definition"
        value: float = getattr(self, MARGIN_FIELDS[self.definition])
        return value

    def __post_init__(self) -> None:
        require(
            self.weight >= 0,
            "eigengap.weight >= 0",
            f"weight={self.weight}",
            "0 switches the term off.",
        )
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
        open_at_zero = self.definition in ("gap", "ratio", "energy")
        require(
            value > 0 if open_at_zero else value >= 0,
            f"{name} {'>' if open_at_zero else '>='} 0",
            f"{value}",
            "A margin is never negative.",
        )
        if self.definition != "leak":
            require(value <= 1, f"{name} <= 1", f"{value}", "This definition lives in [0, 1].")


@dataclass(frozen=True)
class SpectralConfig:
    """How eigenvalues and projectors are differentiated.

    Attributes:
        backend: a name in `trainer.spectral.BACKENDS`, or `auto`.
        deg_thresh: for `masked`: pairs closer than this fraction of the largest eigenvalue do not
            interact.
    """

    backend: str = "auto"
    deg_thresh: float | None = None

    def __post_init__(self) -> None:
        require_choice("spectral.backend", self.backend, BACKEND_NAMES)
        require(
            (self.deg_thresh is not None) == (self.backend == "masked"),
            "spectral.deg_thresh is given exactly for spectral.backend == masked",
            f"deg_thresh={self.deg_thresh}, backend={self.backend}",
            "Drop the threshold, or choose masked.",
        )
        if self.deg_thresh is not None:
            require(
                0 < self.deg_thresh < 1,
                "0 < deg_thresh < 1",
                f"{self.deg_thresh}",
                "It is relative; try 1e-6.",
            )


@dataclass(frozen=True)
class OptimizerConfig:
    """Adam with a cosine decay to a tenth of the initial rate, over the whole budget.

    Attributes:
        learning_rate: initial step size.
        weight_decay: decoupled weight decay (AdamW).
    """

    learning_rate: float = 1e-2
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require(
            self.learning_rate > 0,
            "learning_rate > 0",
            f"{self.learning_rate}",
            "Try 1e-3 to 2e-2.",
        )
        require(
            self.weight_decay >= 0,
            "weight_decay >= 0",
            f"{self.weight_decay}",
            "0 switches it off.",
        )


@dataclass(frozen=True)
class EvaluationConfig:
    """Which fixed scenes a training is judged on. Two trainings with equal values are judged on
    the same scenes.

    Attributes:
        seed: of the validation scenes, which give the objective after every epoch.
        test_seed: of the held-out scenes, seen once, after the last epoch.
        objective_snr_db: SNRs [dB] over which the objective averages.
        report_snr_db: SNRs [dB] of the held-out rows.
        num_scenes: validation scenes per SNR and source number.
        num_test_scenes: held-out scenes per SNR and source number.
    """

    seed: int = 1_000_003
    test_seed: int = 2_000_003
    objective_snr_db: tuple[float, ...] = (-5.0, 0.0)
    report_snr_db: tuple[float, ...] = (-15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 20.0)
    num_scenes: int = 128
    num_test_scenes: int = 128

    def __post_init__(self) -> None:
        for name in ("num_scenes", "num_test_scenes"):
            require(
                getattr(self, name) >= 1,
                f"{name} >= 1",
                f"{name}={getattr(self, name)}",
                "Use a positive count.",
            )
        for name in ("objective_snr_db", "report_snr_db"):
            require(
                len(getattr(self, name)) > 0,
                f"{name} is not empty",
                f"{name}=()",
                "Name at least one SNR.",
            )
        require(
            self.seed != self.test_seed,
            "seed != test_seed",
            f"both {self.seed}",
            "Held-out scenes must be new.",
        )


@dataclass(frozen=True)
class TrainConfig:
    """All that a training depends on; equal configurations give equal trainings on the same
    machine.

    Attributes:
        eps_psd: relative diagonal loading, R + eps · tr(R)/N · I.
        seed: of initial weights and training scenes.
        epochs, steps_per_epoch, batch_size: the budget; the learning rate decays over all of it.
        snr_min_db, snr_max_db: training SNR is drawn uniformly in between [dB].
        device: `auto` is CUDA where there is one, else the CPU.
    """

    scene: SceneConfig = field(default_factory=SceneConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    covariance: CovarianceConfig = field(default_factory=CovarianceConfig)
    eigengap: EigengapConfig = field(default_factory=EigengapConfig)
    spectral: SpectralConfig = field(default_factory=SpectralConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    eps_psd: float = 1e-4
    seed: int = 0
    epochs: int = 10
    steps_per_epoch: int = 20
    batch_size: int = 64
    snr_min_db: float = -10.0
    snr_max_db: float = 4.0
    device: Literal["auto", "cpu", "cuda"] = "auto"

    def __post_init__(self) -> None:
        require(
            self.eps_psd >= 0,
            "eps_psd >= 0",
            f"eps_psd={self.eps_psd}",
            "It is relative; try 1e-4.",
        )
        require(0 <= self.seed < 2**32, "0 <= seed < 2**32", f"{self.seed}", "Use a count from 0.")
        for name in ("epochs", "steps_per_epoch", "batch_size"):
            require(
                getattr(self, name) >= 1,
                f"{name} >= 1",
                f"{name}={getattr(self, name)}",
                "Use a positive count.",
            )
        require(
            self.snr_min_db <= self.snr_max_db,
            "snr_min_db <= snr_max_db",
            f"snr_min_db={self.snr_min_db}, snr_max_db={self.snr_max_db}",
            "Swap them.",
        )
        require_choice("device", self.device, ("auto", "cpu", "cuda"))
        require(
            (self.covariance.blend_bound is not None) == (self.network.kind == "factor"),
            "covariance.blend_bound is given exactly for network.kind == factor",
            f"blend_bound={self.covariance.blend_bound}, kind={self.network.kind}",
            "Drop the bound, or choose the factor network; 0 switches its blend off.",
        )
        if self.spectral.backend == "gram":
            require(
                self.network.kind == "factor",
                "spectral.backend == gram only for network.kind == factor",
                f"kind={self.network.kind}",
                "The other networks hand over a dense R: use exact.",
            )
            rank, elements = self.factor_columns, self.scene.num_elements
            require(
                rank < elements,
                "factor columns < num_elements for spectral.backend == gram",
                f"{rank} columns (network.rank + num_snapshots), num_elements={elements}",
                "Use spectral.backend exact.",
            )
        if self.spectral.backend == "masked":
            require(
                self.eigengap.definition == "subspace",
                "spectral.backend == masked only for eigengap.definition == subspace",
                f"definition={self.eigengap.definition}",
                "The other definitions use eigenvalues only: use exact.",
            )

    @property
    def factor_columns(self) -> int:
        """r, the columns of the factor handed to the spectral backend; 0 for a network without a
        factor."""
        if self.network.rank is None:
            return 0
        measured = self.scene.num_snapshots if self.covariance.blend_bound else 0
        return self.network.rank + measured

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """Builds a configuration from a flat dict of dotted names; names not given keep their
        defaults.

        Raises:
            ConfigError: for an unknown name, a value of the wrong type, or a broken rule.
        """
        tree: dict[str, Any] = {}
        for name, value in params.items():
            head, _, leaf = name.partition(".")
            if leaf:
                tree.setdefault(head, {})[leaf] = value
            else:
                tree[head] = value
        return _build(cls, tree, "")

    def to_params(self) -> dict[str, Any]:
        """The flat dict that `from_params` turns into an equal configuration; JSON-safe, `None`
        left out."""
        flat: dict[str, Any] = {}
        for name, value in dataclasses.asdict(self).items():
            items = (
                {f"{name}.{k}": v for k, v in value.items()}
                if isinstance(value, dict)
                else {name: value}
            )
            flat |= {
                k: list(v) if isinstance(v, tuple) else v
                for k, v in items.items()
                if v is not None
            }
        return flat

    @property
    def digest(self) -> str:
        """Twelve hex digits that two configurations share exactly if they are equal."""
        text = json.dumps(self.to_params(), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


def _build(cls: type, tree: Mapping[str, Any], prefix: str) -> Any:
    hints = typing.get_type_hints(cls)
    values = {}
    for name, value in tree.items():
        if name not in hints:
            known = [prefix + h for h in hints]
            raise ConfigError(
                f"`{prefix}{name}` is no configuration name.{did_you_mean(prefix + name, known)}"
            )
        if dataclasses.is_dataclass(hints[name]):
            if not isinstance(value, Mapping):
                raise ConfigError(
                    f"`{prefix}{name}` is a group, but got {value!r}. "
                    f"Use `{prefix}{name}.<field>`."
                )
            values[name] = _build(typing.cast(type, hints[name]), value, f"{prefix}{name}.")
        else:
            values[name] = _coerce(hints[name], value, prefix + name)
    return cls(**values)


def _coerce(hint: Any, value: Any, name: str) -> Any:
    """Accepts what JSON and command lines turn numbers into; refuses everything else."""
    allowed = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    if value is None and types.NoneType in allowed:
        return None
    kind = next(a for a in allowed if a is not types.NoneType)
    if typing.get_origin(kind) is tuple:
        if isinstance(value, (list, tuple)):
            return tuple(_coerce(float, v, name) for v in value)
    elif kind is float:
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            if value != value or value in (float("inf"), float("-inf")):
                raise ConfigError(f"`{name}` must be finite, but got {value}. Give a number.")
            return float(value)
    elif kind is int:
        if isinstance(value, int) and not isinstance(value, bool):
            return value
    elif isinstance(value, str):
        return value
    raise ConfigError(f"`{name}` must be of type {hint}, but got {value!r}. Correct its type.")
