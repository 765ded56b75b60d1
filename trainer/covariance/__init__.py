"""The covariance type, back-projection of snapshots, the steering dictionary, covariance fitting.

Everything that estimators and networks share: `whiten` and `lmmse` turn scenes into covariances,
`normalise` makes every `Covariance`, `eigendecompose` reads it. Shapes: scenes B, snapshots L,
antennas M, panel elements N, grid points G, sources K.
"""

from .backprojection import (
    ChannelEigenmodes,
    Whitened,
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
    likelihood_gradient,
    quadratic_forms,
    update_noise,
)
from .dictionary import (
    PLANE_PHASE,
    POINTS_PER_BEAM,
    SteeringDictionary,
    steering_dictionary,
)
from .eigendecomposition import Eigendecomposition, eigendecompose
from .products import Products
