"""The covariance type, back-projection of snapshots, the dictionary, and covariance fitting."""

from .backprojection import (
    ChannelEigenmodes,
    channel_eigenmodes,
    fit_loading,
    lmmse,
    pinv,
    sample_covariance,
    whiten,
)
from .covariance import (
    Covariance,
    blend_factors,
    normalise,
    signal_basis,
    true_factor,
    unit_trace,
)
from .covariance_fit import (
    NOISE_FLOOR,
    LikelihoodGradient,
    Observations,
    QuadraticForms,
    likelihood_gradient,
    update_noise,
)
from .dictionary import PLANE_PHASE, POINTS_PER_BEAM, DictionaryModule, pack_hermitian
from .eigendecomposition import Eigendecomposition, eigendecompose

__all__ = [
    "NOISE_FLOOR",
    "PLANE_PHASE",
    "POINTS_PER_BEAM",
    "ChannelEigenmodes",
    "Covariance",
    "DictionaryModule",
    "Eigendecomposition",
    "LikelihoodGradient",
    "Observations",
    "QuadraticForms",
    "blend_factors",
    "channel_eigenmodes",
    "eigendecompose",
    "fit_loading",
    "likelihood_gradient",
    "lmmse",
    "normalise",
    "pack_hermitian",
    "pinv",
    "sample_covariance",
    "signal_basis",
    "true_factor",
    "unit_trace",
    "update_noise",
    "whiten",
]
