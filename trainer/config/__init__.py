"""Frozen, validated training configurations; free of torch, so that a search can check them.

A configuration is built from a flat dict of dotted names (`eigengap.weight`), checked once in
`__post_init__` and never changed. A setting that does not apply is `None`, and refused otherwise:
a margin of a definition that is not used, or a `deg_thresh` without the `masked` backend.
"""

from .fields import FIELDS, Field, field_of, from_json, parse_value, why_inapplicable
from .network import NETWORK_KINDS, CovarianceConfig, NetworkConfig
from .rules import ConfigError, did_you_mean, is_reference, require, require_choice
from .scene import CODE_KINDS, SceneConfig, least_distance
from .spectral import (
    BACKEND_NAMES,
    DEFINITIONS,
    FAILURE_POLICIES,
    MARGIN_FIELDS,
    EigengapConfig,
    SpectralConfig,
)
from .training import (
    BASELINES,
    COUNT_RULES,
    COVARIANCE_NAMES,
    ESTIMATOR_NAMES,
    LIMIT_NAMES,
    METHOD_NAMES,
    POSTERIOR_NAME,
    REFERENCE,
    REFINED_NAMES,
    REFINEMENTS,
    EvaluationConfig,
    OptimizerConfig,
    TrainConfig,
)
from .units import CLOSEST, LIGHT_M_PER_S, unit_hint
