"""Reruns of a run's best trials on fresh seeds and scenes, with and without a term; and designs,
experiments of networks, regimes and terms. Used by the commands `confirm` and `ablate`."""

from .arms import TERMS, paired
from .design import Design
from .factorial import carry_out, create_run, describe_design, design_request
from .request import DEFAULTS, RerunRequest, parser
from .session import open_session
