"""Classical direction finding, by name: MUSIC, MVDR, beamformer, maximum likelihood, sparse."""

from .estimates import Estimates
from .estimators import music
from .fisher_scoring import one_step
from .maximum_likelihood import sml
from .methods import SHARPER, Method, covariance_method, localise, method, read, sharpened
from .source_number import SOURCE_NUMBERS

__all__ = [
    "SHARPER",
    "SOURCE_NUMBERS",
    "Estimates",
    "Method",
    "covariance_method",
    "localise",
    "method",
    "music",
    "one_step",
    "read",
    "sharpened",
    "sml",
]
