"""The posterior of places given the snapshots: its law, likelihood, draws and Bayes estimate."""

from .likelihood import MOST_SOURCES
from .places import law_of_places
from .readout import PosteriorReadout, has_evidence, log_evidence, read_posterior
from .risk import expected_error, least_expected_error
from .sampler import sample_posterior
from .weights import effective_draws
