"""Reruns of a run's best trials on fresh seeds and scenes, with and without a term; used by the
commands `confirm` and `ablate`."""

from .arms import TERMS, paired
from .request import RerunRequest, parser
from .session import open_session
