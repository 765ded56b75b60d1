"""Classical direction finding: MUSIC, MVDR, beamformer, maximum likelihood, sparse fitting.

`build_localiser(name, scene)` makes any of them by its name in results; a localiser maps scenes
and K [B] to `Estimates`. Positions are (azimuth [rad], elevation [rad], 1/range [1/m]) throughout.
"""

from .estimates import LEAST_RATIO, ORIGINS, Estimates, edges, make_estimates
from .fisher_scoring import have_own_source, refine_by_fisher_scoring, score, uncertainty
from .likelihood import Likelihood
from .maximum_likelihood import GridLikelihood, profile_likelihood, sml
from .pseudospectra import music
from .registry import (
    SCORING_SUFFIX,
    Localiser,
    build_localiser,
    build_source_counter,
    covariance_localiser,
    likeliest_number_on,
    refined,
    refined_music,
    with_fisher_scoring,
)
from .source_number import (
    COUNTERS,
    SOURCE_NUMBERS,
    estimate_num_sources,
    laplace_evidence,
    likeliest_number,
)
from .uncertainty import LARGEST_SNR, SINGULAR, invert_information, region_limited
