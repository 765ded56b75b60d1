"""Localisation of recorded scenes: the places of their sources, and what these are worth.

`localise` is the one call: a model and scenes in, a `Localisation` out. `vouch` says what the
estimates of any method are worth, `conventions` which misreading of a recording makes it fit.
"""

from .adaptation import adapt_network
from .diagnosis import withheld_line
from .localise_scenes import localise
