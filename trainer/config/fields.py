"""Every field of a configuration, in one table: type, unit, values, default and meaning.

Command lines check names and values by it, tables of a run take units and meanings from it, and
`docs/configuration.md` is printed from it. Types and defaults are those of the dataclasses.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .flat import coerce, leaves
from .network import NETWORK_KINDS, NORMALISATIONS
from .rules import ConfigError, did_you_mean, is_reference
from .scene import CODE_KINDS
from .spectral import BACKEND_NAMES, DEFINITIONS, FAILURE_POLICIES, MARGIN_FIELDS
from .training import REFINEMENTS, TrainConfig


@dataclass(frozen=True)
class Field:
    """A field of a configuration.

    Attributes:
        kind: `float`, `int`, `str`, or `list`, which has commas on a command line; empty for an
            argument of a user's code, which may be any of the first three.
        unit: as printed in tables; `1` for a pure number.
        values: those that it takes: an interval, or names with ` | ` between.
        about: one phrase.
        default: None where the field does not apply by default.
        no_effect: the conditions under which theory says that it cannot change the result; empty
            if there are none.
    """

    kind: str
    unit: str
    values: str
    about: str
    default: Any
    no_effect: str = ""


def _one_of(names: tuple[str, ...]) -> str:
    return " | ".join(names)


_TABLE: dict[str, tuple[str, str, str]] = {
    "scene.num_horizontal": ("elements", ">= 1", "elements in a row of the panel"),
    "scene.num_vertical": ("elements", ">= 1", "elements in a column of the panel"),
    "scene.num_antennas": ("antennas", ">= 1", "antennas of the base station"),
    "scene.num_snapshots": ("snapshots", ">= 1", "snapshots of a scene"),
    "scene.wavelength_m": ("m", "> 0", "carrier wavelength"),
    "scene.spacing_m": ("m", "> 0", "element spacing; small enough for no grating lobes"),
    "scene.max_sources": ("sources", ">= 1", "K is drawn from 1 to this; below the elements"),
    "scene.azimuth_max_deg": ("deg", "(0, 90)", "sources lie within ± this azimuth"),
    "scene.elevation_max_deg": ("deg", "(0, 90)", "sources lie within ± this elevation"),
    "scene.range_min_m": ("m", "> 0", "least distance of a source"),
    "scene.range_max_m": ("m", "> 0", "largest distance of a source; above range_min_m"),
    "scene.rician_db": ("dB", "any", "line-of-sight to scattered power in the channel"),
    "scene.code_kind": ("", _one_of(CODE_KINDS), "reflection codes"),
    "scene.code_bits": ("bit", "0 ... 16", "phase resolution of random codes; 0 is continuous"),
    "scene.power_spread_db": ("dB", ">= 0", "source powers differ by up to this; 0 is equal"),
    "scene.source_correlation": ("1", "[0, 1)", "correlation of any two sources"),
    "scene.noise_correlation": ("1", "[0, 1)", "correlation of noise at adjacent antennas"),
    "scene.positions_m": ("m", "pairs (h, v)", "places of elements that are on no lattice"),
    "network.kind": (
        "1",
        _one_of((*NETWORK_KINDS, "file.py:name")),
        "dense R (dictionary, unrolled, gram) or low rank (factor); or yours, as file.py:name",
    ),
    "network.width": ("channels", ">= 1", "width of the convolutions"),
    "network.depth": ("layers", ">= 1", "number of convolutions"),
    "network.rank": ("columns", ">= 1", "learned columns of the factor; for factor only"),
    "network.stages": ("stages", ">= 1", "learned steps; for unrolled only"),
    "network.noise_floor": (
        "signal power",
        "> 0",
        "least noise that the network assumes, halved at each stage; for unrolled only",
    ),
    "network.normalisation": (
        "1",
        _one_of(NORMALISATIONS),
        "of the free factor, before or after its product; for gram only",
    ),
    "network.planes": (
        "range planes",
        ">= 1",
        "what the convolutions have channels for; without it, the dictionary's",
    ),
    "network.sha256": ("", "hexadecimal", "of the code of your own network; filled in"),
    "covariance.blend_bound": (
        "1",
        "[0, 1)",
        "largest share of the measured covariance in R; for factor only",
    ),
    "eigengap.weight": ("1", ">= 0", "weight of the eigengap term; 0 is off"),
    "eigengap.definition": ("1", _one_of(DEFINITIONS), "which eigengap, where it has a weight"),
    "eigengap.margin": ("1/K", "(0, 1]", "gap margin, a fraction of 1/K"),
    "eigengap.margin_ratio": ("1", "(0, 1]", "ratio margin, tanh(ln10 dB / 20)"),
    "eigengap.margin_energy": ("tr(R)", "(0, 1]", "energy margin"),
    "eigengap.margin_leak": ("1", ">= 0", "tolerated log1p(leak)"),
    "eigengap.margin_subspace": ("1", "[0, 1]", "tolerated share of U outside P_K"),
    "eigengap.threshold": ("l_1", "(0, 1)", "t, which l_K is to exceed and l_{K+1} not"),
    "eigengap.temperature": ("1", "> 0", "by which description lengths of K are divided"),
    "eigengap.on_failure": ("", _one_of(FAILURE_POLICIES), "for samples that are not finite"),
    "spectral.backend": (
        "1",
        _one_of(BACKEND_NAMES),
        "how eigenvalues and projectors are differentiated",
    ),
    "spectral.deg_thresh": (
        "largest eigenvalue",
        "(0, 1)",
        "masking threshold; for masked only",
    ),
    "loss.term": ("", "file.py:name", "your own loss term; or package.module:name"),
    "loss.weight": ("1", ">= 0", "weight of your own loss term; 0 is off"),
    "loss.sha256": ("", "hexadecimal", "of the code of your own loss term; filled in"),
    "optimizer.learning_rate": ("1", "> 0", "initial step size of AdamW"),
    "optimizer.weight_decay": ("1", ">= 0", "decoupled weight decay"),
    "evaluation.seed": ("", ">= 0", "of the validation scenes"),
    "evaluation.test_seed": ("", ">= 0", "of the held-out scenes; another than evaluation.seed"),
    "evaluation.objective_snr_db": ("dB", "[-100, 100]", "SNRs of the objective"),
    "evaluation.report_snr_db": ("dB", "[-100, 100]", "SNRs of the held-out rows"),
    "evaluation.num_scenes": ("scenes", ">= 1", "validation scenes for each SNR and K"),
    "evaluation.num_test_scenes": ("scenes", ">= 1", "held-out scenes for each SNR and K"),
    "evaluation.tolerance": (
        "1",
        ">= 0",
        "half-width of the capped error's interval that ends a point early; 0 never does",
    ),
    "evaluation.baselines": ("", "methods", "what the network is compared with"),
    "evaluation.refinement": (
        "",
        _one_of(REFINEMENTS),
        "what sharpens a network's estimates; none is scoring",
    ),
    "eps_psd": ("tr(R)/N", ">= 0", "relative diagonal loading"),
    "seed": ("", ">= 0", "of initial weights and training scenes"),
    "epochs": ("epochs", ">= 1", "budget of a training"),
    "steps_per_epoch": ("steps", ">= 1", "optimiser steps of an epoch"),
    "batch_size": ("scenes", ">= 1", "scenes of a step"),
    "snr_min_db": ("dB", "any", "least training SNR"),
    "snr_max_db": ("dB", "any", "largest training SNR; not below snr_min_db"),
    "device": ("", "auto | cpu | cuda", "auto is the GPU where there is one"),
    "start_from": ("", "file", "checkpoint whose weights it begins with; --start-from gives it"),
    "start_sha256": ("", "64 hex digits", "of that checkpoint"),
}
"""Name -> (unit, values, meaning)."""

_APPLIES = {
    "network.rank": ("network.kind", "factor"),
    "network.stages": ("network.kind", "unrolled"),
    "network.noise_floor": ("network.kind", "unrolled"),
    "network.normalisation": ("network.kind", "gram"),
    "covariance.blend_bound": ("network.kind", "factor"),
    "spectral.deg_thresh": ("spectral.backend", "masked"),
    **{f"eigengap.{margin}": ("eigengap.definition", d) for d, margin in MARGIN_FIELDS.items()},
}
"""Name -> the field that it depends on, and the value at which it applies."""

_NO_EFFECT = {
    "eps_psd": "under the gap and subspace definitions (loading shifts all eigenvalues alike and "
    "keeps eigenvectors), and, beyond a constant factor, under energy",
    "spectral.backend": "on the value reached under any definition but subspace (eigenvalues "
    "only: all backends agree on a positive R); it changes speed, and NaN rates under subspace",
}

FIELDS: dict[str, Field] = {
    name: Field(
        kind, *_TABLE.get(name, ("1", "any", "")), default, no_effect=_NO_EFFECT.get(name, "")
    )
    for name, kind, default in leaves(TrainConfig)
}
"""Every field by its dotted name, in the order of the dataclasses."""
ARGUMENTS = ("network.args.", "loss.args.")
"""Prefixes of the keyword arguments of a user's code."""


def field_of(name: str) -> Field:
    """Return the field of that name; raise ConfigError, with the nearest one, if there is none."""
    if name.startswith(ARGUMENTS) and not name.endswith("."):
        return Field("", "1", "any", "argument of your own code", None)
    if name not in FIELDS:
        raise ConfigError(
            f"`{name}` is no configuration name.{did_you_mean(name, FIELDS)} "
            "docs/configuration.md has all of them."
        )
    return FIELDS[name]


def why_inapplicable(name: str, params: Mapping[str, Any]) -> str:
    """Return why a field does not apply to a configuration, given by its parameters, or ""."""
    if name.startswith("network.args."):
        own = is_reference(params.get("network.kind"))
        return "" if own else "It applies to a network of yours only."
    if name.startswith("loss.") and name != "loss.term":
        return "" if params.get("loss.term") else "It applies to a loss.term only."
    other, value = _APPLIES.get(name, ("", None))
    return "" if params.get(other) == value else f"It applies to {other} = {value} only."


def parse_value(name: str, text: str) -> Any:
    """Return the value of a field that a command line gives as text.

    Numbers are JSON's, a list is JSON's or has commas between, `none` is None where that is
    allowed, and a str is the text itself, or a JSON string.

    Raises:
        ConfigError: for an unknown name, or a value of the wrong type.
    """
    kind = field_of(name).kind
    if not kind:
        return from_json(text)
    value = text if kind == "str" and text[:1] != '"' else from_json(text)
    if value in ("none", "null"):
        value = None
    if kind == "list" and isinstance(value, str | int | float):
        value = [from_json(word) for word in text.split(",")]
    return coerce(TrainConfig, name, value)


def from_json(text: str) -> Any:
    """Return what a command line gives as JSON, or the text itself."""
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
