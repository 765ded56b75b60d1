"""The covariance type, back-projection of snapshots, the dictionary, and covariance fitting."""

from .backprojection import (
    ChannelModes,
    channel_modes,
    fit_loading,
    lmmse,
    pinv,
    sample_covariance,
    whiten,
)
from .covariance_fit import NOISE_FLOOR, Forms, Observed, Pull, improved_noise, pull
from .covariance_type import (
    Covariance,
    blend_factors,
    normalise,
    signal_basis,
    true_factor,
    unit_trace,
)
from .dictionary import PLANE_PHASE, POINTS_PER_BEAM, OnDictionary, pack_hermitian
from .eigenvectors import Modes, modes

__all__ = [
    "NOISE_FLOOR",
    "PLANE_PHASE",
    "POINTS_PER_BEAM",
    "ChannelModes",
    "Covariance",
    "Forms",
    "Modes",
    "Observed",
    "OnDictionary",
    "Pull",
    "blend_factors",
    "channel_modes",
    "fit_loading",
    "improved_noise",
    "lmmse",
    "modes",
    "normalise",
    "pack_hermitian",
    "pinv",
    "pull",
    "sample_covariance",
    "signal_basis",
    "true_factor",
    "unit_trace",
    "whiten",
]
