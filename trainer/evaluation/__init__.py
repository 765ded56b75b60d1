"""Errors, bounds, and scores of networks and classical methods on common scenes."""

from .conditions import CHUNK, Conditions, Estimate, common_scenes, objective, score
from .confidence import BINS, COEFFICIENTS, Calibration, calibrate, near_a_source, numbers_of
from .crb import stochastic_crb
from .metrics import Errors, capped_error, gospa, match, mean_over_sources, success
from .scored_methods import (
    baselines,
    classical,
    device_of,
    held_out,
    network_estimate,
    score_network,
    validate,
)
from .spectra import eigenvalue_rows, pseudospectrum_rows
from .summaries import EvaluationRow, score_lines, to_numpy

__all__ = [
    "BINS",
    "CHUNK",
    "COEFFICIENTS",
    "Calibration",
    "Conditions",
    "Errors",
    "Estimate",
    "EvaluationRow",
    "baselines",
    "calibrate",
    "capped_error",
    "classical",
    "common_scenes",
    "device_of",
    "eigenvalue_rows",
    "gospa",
    "held_out",
    "match",
    "mean_over_sources",
    "near_a_source",
    "network_estimate",
    "numbers_of",
    "objective",
    "pseudospectrum_rows",
    "score",
    "score_lines",
    "score_network",
    "stochastic_crb",
    "success",
    "to_numpy",
    "validate",
]
