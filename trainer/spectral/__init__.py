"""Eigenvalues and spectral projectors with safe derivatives, and the losses on them."""

from .backend_checks import check_spectral, problem_size
from .backends import BACKENDS
from .decomposition import spectrum
from .failure_policy import Guarded, guard
from .losses import dominance_loss, eigengap_loss

__all__ = [
    "BACKENDS",
    "Guarded",
    "check_spectral",
    "dominance_loss",
    "eigengap_loss",
    "guard",
    "problem_size",
    "spectrum",
]
