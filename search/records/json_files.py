"""JSON files of a run: read with errors for the person at the command line, written a line per
entry."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search.plan import CorruptRun

_JSON = json.JSONEncoder(allow_nan=False, ensure_ascii=False)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def read_json(path: Path, remedy: str = "start anew with another `--name`") -> dict[str, Any]:
    """Return the JSON object in a file; `remedy` is the alternative to restoring a damaged one.

    Raises:
        CorruptRun: if the file cannot be read, or holds no JSON object.
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
    """Encode an object as JSON, a line for each entry.

    Deeper indentation would need the encoder written in Python, which takes ten times as long.

    Raises:
        ValueError: for a number that is not finite, since JSON has none.
    """
    entries = (f"  {_JSON.encode(k)}: {_JSON.encode(v)}" for k, v in content.items())
    return ("{\n" + ",\n".join(entries) + "\n}\n").encode()


def checked_name(name: str) -> str:
    """Return the name of a part or trial, which becomes a file's name.

    Raises:
        ValueError: if it could leave its folder, or be skipped by readers.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            "a part or trial name has letters, digits, `.`, `_`, `-` and begins with a letter or "
            f"digit (hidden files are skipped by readers), but got {name!r}. Rename it."
        )
    return name
