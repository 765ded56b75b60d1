"""The optimiser, the evaluation, and the configuration of a whole training."""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from .flat import Arguments, build, flatten, require_types
from .network import CovarianceConfig, NetworkConfig
from .rules import (
    require,
    require_choice,
    require_counts,
    require_fields,
    require_finite,
    require_reference,
)
from .scene import SceneConfig
from .spectral import EigengapConfig, SpectralConfig

COVARIANCE_NAMES = ("pinv", "lmmse", "sparse", "exact")
ESTIMATOR_NAMES = ("music", "mvdr", "beamformer")
_UNREFINED_NAMES = (
    "sml",
    *(f"{covariance}_{name}" for covariance in COVARIANCE_NAMES for name in ESTIMATOR_NAMES),
)
REFERENCE = "lmmse_music"
"""The classical method that a network has to beat."""
LIMIT_NAMES = ("limit_shape", "limit_blind")
"""Least expected capped errors of any estimator, by two observers (`trainer.limits`)."""
POSTERIOR_NAME = "posterior"
"""The Bayes estimate of the exact posterior (`trainer.posterior`)."""
METHOD_NAMES = (
    "crb",
    *LIMIT_NAMES,
    *_UNREFINED_NAMES,
    *(f"{name}+scoring" for name in _UNREFINED_NAMES),
    POSTERIOR_NAME,
)
"""The bound, the limits, the Bayes estimate, every method, and every method refined by Fisher
scoring."""
COUNT_RULES = ("mdl", "aic", "ratio", "half")
"""Rules for K on the eigenvalues of R (`trainer.estimation`): description length, Akaike's, the
widest relative gap, and those above half of the largest."""
REFINEMENTS = ("scoring", "judged")
"""Ways to sharpen a network's estimates; in rows, their names follow a `+`."""
REFINED_NAMES = tuple(f"network+{how}" for how in REFINEMENTS)
"""Estimators of rows of a network whose estimates are refined as `localise` does."""
LARGEST_SNR_DB = 100.0
"""Beyond, the information matrix of the bound is singular in double precision."""
LARGEST_SEED = 2**63 - 1
"""Of a torch generator, and of the Philox keys of evaluation scenes."""
BASELINES = ("crb", "lmmse_music", "pinv_music", "lmmse_mvdr", "lmmse_beamformer")
"""Without maximum likelihood, which takes ten times as long as all of them together."""

LARGEST_LEARNING_RATE = 1e36
"""Beyond, Adam's first step, ten times the rate, overflows in single precision. Smaller rates may
still diverge; training reports that."""


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
        require_types(self)
        require(
            0 < self.learning_rate <= LARGEST_LEARNING_RATE,
            f"0 < learning_rate <= {LARGEST_LEARNING_RATE:g}",
            f"{self.learning_rate}",
            "Try 1e-3 to 2e-2.",
        )
        decay = self.weight_decay
        require(decay >= 0, "weight_decay >= 0", f"{decay}", "0 switches it off.")
        require_finite(self)


@dataclass(frozen=True)
class EvaluationConfig:
    """The fixed scenes that trainings are evaluated on; equal settings give the same scenes.

    Attributes:
        seed: of the validation scenes, which give the objective after every epoch.
        test_seed: of the held-out scenes, seen once, after the last epoch.
        objective_snr_db: SNRs [dB] over which the objective averages.
        report_snr_db: SNRs [dB] of the held-out rows.
        num_scenes: validation scenes per SNR and source number.
        num_test_scenes: held-out scenes per SNR and source number.
        tolerance: half-width of the 95 % interval of the capped error at which scoring of a
            held-out point stops early, after a multiple of 128 scenes; 0 scores all scenes.
        baselines: compared with the network on the held-out scenes: the bound (`crb`),
            stochastic maximum likelihood (`sml`), or an estimator on a covariance
            (`lmmse_music`).
        refinement: what sharpens a network's estimates: `judged`, where the likelihood is to be
            trusted (`estimation.judge_by_likelihood`), or `scoring`, always and no more (None).
    """

    seed: int = 1_000_003
    test_seed: int = 2_000_003
    objective_snr_db: tuple[float, ...] = (-5.0, 0.0)
    report_snr_db: tuple[float, ...] = (-15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 20.0)
    num_scenes: int = 128
    num_test_scenes: int = 128
    tolerance: float = 0.0
    baselines: tuple[str, ...] = BASELINES
    refinement: str | None = None

    def __post_init__(self) -> None:
        require_types(self)
        require_counts(self, "num_scenes", "num_test_scenes")
        snrs = ("objective_snr_db", "report_snr_db")
        require_fields(self, snrs, bool, "{} is not empty", "Name at least one SNR.")
        require_fields(
            self,
            snrs,
            lambda values: all(abs(snr_db) <= LARGEST_SNR_DB for snr_db in values),
            f"abs({{}}) <= {LARGEST_SNR_DB:g} [dB]",
            "Give finite SNRs in dB.",
        )
        require_fields(
            self,
            ("seed", "test_seed"),
            lambda n: 0 <= n <= LARGEST_SEED,
            f"0 <= {{}} <= {LARGEST_SEED}",
            "Choose another seed.",
        )
        finite = 0 <= self.tolerance < math.inf
        rule = "0 <= evaluation.tolerance < inf"
        require(finite, rule, f"{self.tolerance}", "0 scores all scenes.")
        for name in self.baselines:
            require_choice("evaluation.baselines", name, METHOD_NAMES)
        if self.refinement is not None:
            require_choice("evaluation.refinement", self.refinement, REFINEMENTS)
        require(
            self.seed != self.test_seed,
            "seed != test_seed",
            f"both {self.seed}",
            "Held-out scenes must be new.",
        )
        require_finite(self)


@dataclass(frozen=True)
class LossConfig:
    """A loss term of the user's own, beside those of the project.

    Attributes:
        term: reference of a function (covariance, scenes, **args) -> loss per scene.
        weight: of the term in the total loss; more than 0 exactly if there is one. 0 is None.
        sha256: of the term's code, which is refused if it is another; None if it may change.
        args: keyword arguments of the function, `loss.args.<name>`.
    """

    term: str | None = None
    weight: float | None = None
    sha256: str | None = None
    args: Arguments = field(default_factory=Arguments)

    def __post_init__(self) -> None:
        require_finite(self)
        weight = self.weight or 0.0
        object.__setattr__(self, "weight", self.weight or None)
        require(weight >= 0, "loss.weight >= 0", f"{weight}", "0 switches the term off.")
        require(
            (self.term is not None) == (weight > 0),
            "loss.term is given exactly for loss.weight > 0",
            f"term={self.term}, weight={self.weight}",
            "Give the term a weight, or drop it.",
        )
        require_reference("loss", self.term, self.sha256, self.args)


@dataclass(frozen=True)
class TrainConfig:
    """Everything a training depends on: on one machine, equal ones give equal trainings.

    Attributes:
        eps_psd: relative diagonal loading, R + eps · tr(R)/N · I.
        seed: of initial weights and training scenes.
        epochs, steps_per_epoch, batch_size: the budget; the learning rate decays over all of it.
        snr_min_db, snr_max_db: training SNR is drawn uniformly in between [dB].
        device: `auto` is CUDA if there is a GPU, else the CPU.
        start_sha256: of the checkpoint whose weights it begins with.
        start_from: a file with that checkpoint, for trainings that are not told its content; where
            it lies makes no difference to a training, and none to equality and digest.
    """

    scene: SceneConfig = field(default_factory=SceneConfig)
    network: NetworkConfig = field(default_factory=NetworkConfig)
    covariance: CovarianceConfig = field(default_factory=CovarianceConfig)
    eigengap: EigengapConfig = field(default_factory=EigengapConfig)
    spectral: SpectralConfig = field(default_factory=SpectralConfig)
    loss: LossConfig = field(default_factory=LossConfig)
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
    start_from: str | None = field(default=None, compare=False)
    start_sha256: str | None = None

    def __post_init__(self) -> None:
        require_types(self)
        require(self.eps_psd >= 0, "eps_psd >= 0", f"{self.eps_psd}", "It is relative; try 1e-4.")
        require(0 <= self.seed < 2**32, "0 <= seed < 2**32", f"{self.seed}", "Use a count from 0.")
        require_counts(self, "epochs", "steps_per_epoch", "batch_size")
        require(
            self.snr_min_db <= self.snr_max_db,
            "snr_min_db <= snr_max_db",
            f"snr_min_db={self.snr_min_db}, snr_max_db={self.snr_max_db}",
            "Swap them.",
        )
        require_finite(self)
        require(
            self.start_from is None or self.start_sha256 is not None,
            "start_from is given with start_sha256",
            f"start_from={self.start_from} alone",
            "`python -m trainer train --start-from MODEL` gives both.",
        )
        require_choice("device", self.device, ("auto", "cpu", "cuda"))
        require(
            (self.covariance.blend_bound is not None) == (self.network.kind == "factor"),
            "covariance.blend_bound is given exactly for network.kind == factor",
            f"blend_bound={self.covariance.blend_bound}, kind={self.network.kind}",
            "Drop the bound, or choose the factor network; 0 switches its blend off.",
        )
        require(
            self.network.kind != "gram" or self.scene.positions_m is None,
            "network.kind == gram only for a panel on a lattice",
            "scene.positions_m",
            "Its convolutions need rows and columns: choose another network.",
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
        most = min(self.scene.num_elements, self.scene.num_snapshots)
        require(
            self.eigengap.definition != "count" or self.scene.max_sources < most,
            "scene.max_sources < num_snapshots, num_elements for eigengap.definition == count",
            f"max_sources={self.scene.max_sources}, the lesser of both {most}",
            "Description lengths need a noise eigenvalue: take more snapshots.",
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
        """r, the columns of the factor that the spectral backend gets; 0 without a factor."""
        if self.network.rank is None:
            return 0
        measured = self.scene.num_snapshots if self.covariance.blend_bound else 0
        return self.network.rank + measured

    @classmethod
    def from_params(cls, params: Mapping[str, Any]) -> Self:
        """Build a configuration from a flat dict of dotted names; the rest keep their defaults.

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
        return build(cls, tree, "")

    def to_params(self) -> dict[str, Any]:
        """Return the flat dict that `from_params` turns back; JSON-safe, without `None`."""
        return {
            name: one for field, value in vars(self).items() for name, one in flatten(field, value)
        }

    @property
    def digest(self) -> str:
        """Twelve hex digits of a hash: the same for equal configurations, and only for them."""
        named = self.to_params()
        named.pop("start_from", None)
        text = json.dumps(named, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]
