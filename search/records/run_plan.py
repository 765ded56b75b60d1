"""The plan of a run, read back from its `run.json`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import spaces
from search.plan import CorruptRun, SearchConfig
from trainer.config import ConfigError


def declared(space: spaces.Space) -> dict[str, tuple[str, str, str]]:
    """What a run of that space has columns for."""
    known = {name: spaces.PARAMETERS[name] for name in space.parameters()}
    return {name: (p.kind, p.unit, p.about) for name, p in known.items()}


def planned(path: Path, stored: Mapping[str, Any], asked: Mapping[str, object]) -> SearchConfig:
    """The plan of a run, with what else is asked for.

    Raises:
        CorruptRun: if `run.json` holds no plan.
    """
    try:
        return SearchConfig(**{**stored["search"], **asked})
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, ConfigError) and asked:
            raise
        raise CorruptRun(
            f"{path / 'run.json'} must hold the plan of a search, but does not ({error}). "
            "Restore it from a copy, or start anew with another `--name`."
        ) from None
