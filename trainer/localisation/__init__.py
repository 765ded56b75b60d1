"""Localisation of recorded scenes: the places of their sources, and what these are worth.

`localise` is the one call: a model and scenes in, a `Localisation` out.
"""

from .adaptation import adapt_network
from .localise_scenes import localise
