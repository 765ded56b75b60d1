"""Finalists trained again: on fresh seeds and scenes, with and without a term."""

from .arms import TERMS, arm_changes, paired
from .finalists import RerunRequest, parser
from .sessions import session

__all__ = ["TERMS", "RerunRequest", "arm_changes", "paired", "parser", "session"]
