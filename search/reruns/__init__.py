"""Finalists trained again: on fresh seeds and scenes, with and without a term."""

from .arms import TERMS, paired, pairs_shown
from .finalists import Asked, command, parser
from .sessions import session

__all__ = ["TERMS", "Asked", "command", "paired", "pairs_shown", "parser", "session"]
