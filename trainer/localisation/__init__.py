"""Localisation of recorded scenes: the places of their sources, and what these are worth.

`localise` is the one call: a model and scenes in, a `Localisation` out. `vouch` says what the
estimates of any method are worth, `conventions` which misreading of a recording makes it fit.
`check_recording` says whether a recording is as the model has it.
"""

from .best_places import reverse_phase
from .diagnosis import withheld_line
from .localisation import Localisation
from .localise_scenes import localise
from .methods import adapt_network, default_scene
from .recording_check import check_recording
from .vouching import judge_recording, vouch, vouched, withhold_reversed
