"""Building blocks of spaces: one function per group of configuration fields.

Each asks the trial for the fields that apply and returns only those. The ranges are
measured: eigengap weights above 1 hurt in paired trainings, margins beyond half an eigenvalue ask
for more than a low-SNR posterior can know, and learning rates outside [1e-3, 3e-2] did not learn
in 200 steps.
"""

from typing import Any

from .ranges import Float
from .space import Trial

NOISE_FLOOR = 0.4
"""Noise floor of the unrolled network; without one it does not learn high SNRs, whatever the SNRs
of its training (docs/network.md)."""


def optimizer(trial: Trial) -> dict[str, Any]:
    """Draw the learning rate."""
    rate = trial.suggest_float("optimizer.learning_rate", 1e-3, 3e-2, log=True)
    return {"optimizer.learning_rate": rate}


def network(
    trial: Trial, *, widths: tuple[int, int] = (16, 48), most_stages: int = 2
) -> dict[str, Any]:
    """Draw kind and size; only the factor network has rank and blend, only the unrolled stages,
    and a noise floor that is not searched."""
    kind = trial.suggest_categorical("network.kind", ("dictionary", "factor", "unrolled"))
    drawn = {
        "network.kind": kind,
        "network.width": trial.suggest_int("network.width", *widths, step=16),
        "network.depth": trial.suggest_int("network.depth", 2, 4),
    }
    if kind == "factor":
        drawn["network.rank"] = trial.suggest_int("network.rank", 8, 16, step=4)
        drawn["covariance.blend_bound"] = trial.suggest_float("covariance.blend_bound", 0.0, 0.3)
    if kind == "unrolled":
        drawn["network.stages"] = trial.suggest_int("network.stages", 1, most_stages)
        drawn["network.noise_floor"] = NOISE_FLOOR
    if kind == "gram":  # for `--choices network.kind=`
        order = trial.suggest_categorical("network.normalisation", ("before", "after"))
        drawn["network.normalisation"] = order
    return drawn


def loading(trial: Trial) -> dict[str, Any]:
    """Draw the diagonal loading, relative to tr(R)/N."""
    return {"eps_psd": trial.suggest_float("eps_psd", 1e-6, 1e-1, log=True)}


MARGINS: dict[str, tuple[str, Float]] = {
    "gap": ("eigengap.margin", Float(0.03, 0.5, log=True)),
    "ratio": ("eigengap.margin_ratio", Float(0.1, 0.9)),
    "energy": ("eigengap.margin_energy", Float(0.3, 0.95)),
    "leak": ("eigengap.margin_leak", Float(0.01, 3.0, log=True)),
    "subspace": ("eigengap.margin_subspace", Float(0.0, 0.5)),
    "threshold": ("eigengap.threshold", Float(0.1, 0.9)),
    "count": ("eigengap.temperature", Float(1.0, 100.0, log=True)),
}
"""Definition -> (name of its margin, threshold or temperature, range)."""
SEARCHED = ("gap", "ratio", "energy", "leak", "subspace")
"""Definitions that spaces draw by themselves; others are for `--choices eigengap.definition=`."""


ACTING: dict[str, dict[str, Any]] = {
    definition: {
        "eigengap.definition": definition,
        "eigengap.weight": weight,
        MARGINS[definition][0]: margin,
    }
    for definition, weight, margin in (
        ("gap", 0.3, 0.5),
        ("ratio", 0.3, 0.5),
        ("energy", 0.3, 0.7),
        ("leak", 0.1, 1.0),
        ("subspace", 0.3, 0.1),
        ("threshold", 0.3, 0.5),
        ("count", 0.3, 16.0),
    )
}
"""Definition -> weight and margin, inside the ranges above, at which the term acts: networks
trained without it miss the margin in a third to two thirds of the scenes
(`benchmarks/eigengap_ablation.sh` prints it). An ablation of a definition uses them. The founding
margin, 0.03, is met by almost every scene: its term does nothing. `threshold` and `count` have no
margin (`benchmarks/count_control.py` measures them at these values)."""


def eigengap(trial: Trial) -> dict[str, Any]:
    """Draw the term on or off; a definition and its own margin apply only when it is on."""
    if trial.suggest_categorical("eigengap.term", ("on", "off")) == "off":
        return {"eigengap.weight": 0.0}
    definition = trial.suggest_categorical("eigengap.definition", SEARCHED)
    return weighted(trial, definition) | {"eigengap.definition": definition}


def weighted(trial: Trial, definition: str) -> dict[str, Any]:
    """Draw weight and margin of the given definition."""
    name, margin = MARGINS[definition]
    return {
        "eigengap.weight": trial.suggest_float("eigengap.weight", 0.01, 1.0, log=True),
        name: trial.suggest_float(name, margin.low, margin.high, log=margin.log),
    }


def spectral(trial: Trial, *, kind: str, definition: str | None) -> dict[str, Any]:
    """Draw the backend: none without the term, `gram` for a factor only, `masked` for subspace."""
    if definition is None:
        return {}
    backends = ["exact", "eigh", "svd"]
    branch = "values"
    if definition == "subspace":
        backends.append("masked")
        branch = "subspace"
    if kind == "factor":
        backends.append("gram")
    backend = trial.suggest_categorical(f"spectral.backend@{kind}.{branch}", tuple(backends))
    drawn = {"spectral.backend": backend}
    if backend == "masked":
        threshold = trial.suggest_float("spectral.deg_thresh", 1e-9, 1e-3, log=True)
        drawn["spectral.deg_thresh"] = threshold
    return drawn
