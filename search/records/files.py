"""The file system under a run: finding it, reading it with clear errors, writing whole files only.

Errors here are for the person at the command line: one line with the rule, the value and the
remedy.
"""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from search.plan import CorruptRun, RunExists

from .arrow import check_parameters

FORMAT = 1
"""Version of the layout; a run of another one is refused, not guessed at."""


_JSON = json.JSONEncoder(allow_nan=False, ensure_ascii=False)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def refuse_existing(path: Path) -> None:
    """Raises RunExists if there is anything under `path`."""
    if os.path.lexists(path):
        raise RunExists(
            f"a new run needs a new folder, but {path} exists. Continue it with "
            f"`--resume {path}`, or choose another `--name`."
        )


def read_run(path: str | Path) -> dict[str, Any]:
    """`run.json` with its `format` and `parameters`.

    Raises:
        CorruptRun: if it is missing, damaged, or of another format.
    """
    file = Path(path) / "run.json"
    if not file.exists():
        raise CorruptRun(missing(file))
    content = read_json(file)
    if content.get("format") != FORMAT:
        raise CorruptRun(
            f"{file} must have format {FORMAT}, but has {content.get('format')!r}. "
            "Read it with the version of this project that wrote it."
        )
    try:
        check_parameters({k: tuple(v) for k, v in content["parameters"].items()})
    except (KeyError, AttributeError, TypeError, ValueError) as error:
        raise CorruptRun(
            f"{file} must name the space's parameters, but: {error}. Restore it from a copy, or "
            "start anew with another `--name`."
        ) from None
    return content


def part_files(folder: Path) -> list[Path]:
    """The part files of a table that count: a writer's temporary ones are hidden."""
    return sorted(folder.glob("[!._]*.parquet"))


def is_readable(part: Path) -> bool:
    """Whether every row of a part can be read."""
    try:
        pq.ParquetFile(part).read()
    except (pa.ArrowException, OSError):
        return False
    return True


def read_part_schema(part: Path) -> pa.Schema:
    """The schema in a part's footer.

    Raises:
        CorruptRun: if the file is no complete Parquet file.
    """
    try:
        return pq.read_schema(part)
    except (pa.ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0].rstrip(". ")
        ended = part.parent.parent / "trials" / part.name
        both = f" and {ended}" if ended.exists() and ended != part else ""
        raise CorruptRun(
            f"{part} must be a complete Parquet file, but is not ({reason}). Delete it{both}, "
            "then `--resume` the run: what they held is computed again."
        ) from None


def read_json(path: Path, remedy: str = "start anew with another `--name`") -> dict[str, Any]:
    """What a file holds.

    Raises:
        CorruptRun: if that is no JSON object; it is to be restored, or else `remedy`.
    """
    try:
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError(f"it is a {type(content).__name__}, not an object")
    except (OSError, ValueError) as error:
        raise CorruptRun(
            f"{path} must be readable JSON, but is not ({error}). Restore it from a copy, or "
            f"{remedy}."
        ) from None
    return content


def to_json(content: Mapping[str, Any]) -> bytes:
    """JSON, a line for each entry; a number that is not finite is refused, since JSON has none.

    Not indented further: that takes the encoder that is written in Python, ten times as long.
    """
    entries = (f"  {_JSON.encode(k)}: {_JSON.encode(v)}" for k, v in content.items())
    return ("{\n" + ",\n".join(entries) + "\n}\n").encode()


def checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError(
            "a part or trial name has letters, digits, `.`, `_`, `-` and begins with a letter or "
            f"digit (hidden files are skipped by readers), but got {name!r}. Rename it."
        )
    return name


def missing(path: Path) -> str:
    return (
        f"a run folder has {path.name}, but {path} is missing. Restore it from a copy, or start "
        "anew with another `--name`."
    )
