"""Eigenvalues and spectral projectors with safe derivatives, and the losses on them.

`spectrum(R)` or `spectrum(factor=F)` returns a `Spectrum` of eigenvalues, gaps and projectors P_K.
Eigenvalues descend, K is an int or one per sample, batch axes lead, and every result may be
differentiated once. Gradients are written out in `dense_derivatives` and `factor_derivatives`.
"""

from .backends import BACKENDS
from .decomposition import spectrum
from .failure_policy import Guarded, guard
from .losses import dominance_loss, eigengap_loss
from .preflight import check_spectral, problem_size
