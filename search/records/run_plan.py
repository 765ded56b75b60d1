"""`run.json`: the plan, provenance and parameters of a run."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.plan import CorruptRun, SearchConfig
from trainer.config import ConfigError
from trainer.record import START_FILE
from trainer.user_code import CodeError

from .arrow import check_parameters
from .json_files import read_json
from .schema import Parameters

FORMAT = 1
"""Version of the layout; a run of another one is refused."""


def declared(plan: SearchConfig) -> dict[str, tuple[str, str, str]]:
    """Return the parameters that a plan's space can set as a run declares them.

    The kind of an argument or parameter of a user's code follows from its values.
    """
    space, found = plan.space, {}
    for name in space.parameters():
        field = plan.names.field_of(name)
        kinds = {type(drawn[name]) for drawn in space.branches() if name in drawn}
        kind = "str" if str in kinds else "float" if float in kinds else "int"
        found[name] = ((not plan.trainable and field.kind) or kind, field.unit, field.about)
    return found


def planned(path: Path, stored: Mapping[str, Any], changes: Mapping[str, object]) -> SearchConfig:
    """Return the plan of a run with some `changes`.

    Raises:
        CorruptRun: if `run.json` holds no plan.
        ConfigError: if a change breaks a rule, or a user's code is not as it was.
    """
    try:
        return SearchConfig(**{**stored["search"], **changes})
    except (KeyError, TypeError, ValueError) as error:
        if isinstance(error, CodeError) or (isinstance(error, ConfigError) and changes):
            raise
        raise CorruptRun(
            f"{path / 'run.json'} must hold the plan of a search, but does not ({error}). "
            "Restore it from a copy, or start anew with another `--name`."
        ) from None


def read_start(run: Path, plan: SearchConfig) -> bytes:
    """Return the checkpoint whose weights a run's trials begin with; b"" if they begin afresh.

    Raises:
        CorruptRun: if it is not the one that the run began with.
    """
    sha256 = None if plan.trainable else plan.template.start_sha256
    file = run / START_FILE
    if sha256 is None:
        return b""
    if not file.is_file():
        raise missing(file)
    content = file.read_bytes()
    if (found := hashlib.sha256(content).hexdigest()) != sha256:
        raise CorruptRun(
            f"all trials of a run begin with the same weights, but the SHA-256 of {file} is "
            f"{found[:12]}... and the run began with {sha256[:12]}... Restore it from a copy, or "
            f"from {plan.start_from}."
        )
    return content


def read_run(path: str | Path) -> dict[str, Any]:
    """Return the content of `run.json`, with its `format` and `parameters`.

    Raises:
        CorruptRun: if it is missing, damaged, or of another format.
    """
    file = Path(path) / "run.json"
    if not file.exists():
        raise missing(file)
    content = read_json(file)
    if content.get("format") != FORMAT:
        raise CorruptRun(
            f"{file} must have format {FORMAT}, but has {content.get('format')!r}. "
            "Read it with the version of this project that wrote it."
        )
    try:
        check_parameters(parameters_of(content))
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise CorruptRun(
            f"{file} must name the space's parameters, but: {error}. Restore it from a copy, or "
            "start anew with another `--name`."
        ) from None
    return content


def parameters_of(content: Mapping[str, Any]) -> Parameters:
    """Return the parameters that `run.json` declares."""
    return {name: tuple(about) for name, about in content["parameters"].items()}


def metrics_of(content: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the numbers that a user's trainer has reported, from `run.json`."""
    return tuple(content.get("metrics", ()))


def missing(path: Path) -> CorruptRun:
    """Return the error for a file or folder that every run has."""
    return CorruptRun(
        f"a run folder has {path.name}, but {path} is missing. Restore it from a copy, or start "
        "anew with another `--name`."
    )
