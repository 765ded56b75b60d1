"""Evaluation of networks and classical methods: errors, bounds, confidence, on common scenes.

`evaluate_network` and `evaluate_baselines` return rows per SNR and K, and errors per scene, by
which any two estimators can be compared. `validate` gives a training its objective.
"""

from .conditions import CHUNK, Conditions, Estimator, common_scenes, evaluate, objective
from .confidence import (
    BINS,
    NUM_COEFFICIENTS,
    Calibration,
    calibrate,
    confidence_features,
    confidence_outcomes,
    near_a_source,
)
from .crb import stochastic_crb
from .figure_rows import eigenvalue_rows, pseudospectrum_rows
from .identification import identify
from .limit import distance_to_limit, extend_limit, limit_lines
from .metrics import TOLERANCE_DEG, Errors, capped_error, gospa, match, mean_over_sources, success
from .presence import constancy_p_value, noise_p_value, place_probability, source_gain
from .protocol import (
    classical_estimator,
    device_of,
    evaluate_baselines,
    evaluate_counting,
    evaluate_network,
    held_out_conditions,
    network_estimator,
    posterior_readout,
    validate,
)
from .reference import Margin, margin_over_reference
from .rows import EvaluationRow, confusion_lines, table_lines, to_numpy
