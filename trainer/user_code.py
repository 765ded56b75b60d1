"""Code of a user by reference: `path/to/file.py:name`, or `package.module:name`.

A file is loaded on its own, whatever `sys.path` is; a module is imported. What is run is what was
recorded: a file whose SHA-256 is another than expected is refused by name. Workers get the text of
a file from their driver (`give_texts`).
"""

import hashlib
import importlib
import importlib.util
import linecache
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from trainer.config import ConfigError, did_you_mean

_given: dict[str, str] = {}
"""Texts of files by their path, in place of the files."""
_loaded: dict[tuple[str, str], ModuleType] = {}
"""Modules by path and hash."""


class CodeError(ConfigError):
    """Code of a user that cannot be run: missing, changed, broken, or against its contract."""


@dataclass(frozen=True)
class Source:
    """The text that a reference stands for, and the path of its file."""

    path: str
    text: str

    @property
    def sha256(self) -> str:
        """Hash of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def is_reference(name: str) -> bool:
    """Return whether a name is that of a user's code, `file.py:name` or `module:name`."""
    return ":" in name


def is_file(reference: str) -> bool:
    """Return whether a reference names a file, not a module."""
    return reference.rpartition(":")[0].endswith(".py")


def source_of(reference: str) -> Source:
    """Return the source of a reference; nothing is run, but for the packages of a module.

    Raises:
        CodeError: if it cannot be read.
    """
    place, _, name = reference.rpartition(":")
    if not (place and name.isidentifier()):
        raise CodeError(
            f"code is named as file.py:name or package.module:name, but got {reference!r}."
        )
    if place in _given:
        return Source(place, _given[place])
    path = place
    if not is_file(reference):
        try:
            found = importlib.util.find_spec(place)
        except (ImportError, ValueError):
            found = None
        if found is None or found.origin is None:
            raise CodeError(
                f"`{reference}` must name a module that can be imported, but there is no {place}. "
                "Set PYTHONPATH, or name a file: path/to/file.py:name."
            )
        path = found.origin
    try:
        return Source(path, Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise CodeError(
            f"`{reference}` must name a file that can be read, but {path} cannot ({error}). "
            "Paths are those of this command's folder; a run keeps a copy in its folder `code`."
        ) from None


def require_unchanged(reference: str, sha256: str) -> Source:
    """Return the source of a reference; raise CodeError if its hash is another."""
    source = source_of(reference)
    if source.sha256 != sha256:
        raise CodeError(
            f"{source.path} has changed: its SHA-256 is {source.sha256[:12]}..., and "
            f"{sha256[:12]}... was recorded. Put it back (a run keeps a copy in its folder "
            "`code`), or start anew with the changed one."
        )
    return source


def load(reference: str, sha256: str | None = None) -> Any:
    """Return the object that a reference names.

    Raises:
        CodeError: if the code cannot be read or run, has no such name, or another hash.
    """
    source = source_of(reference) if sha256 is None else require_unchanged(reference, sha256)
    place, _, name = reference.rpartition(":")
    key = place, source.sha256
    if key not in _loaded:
        _loaded[key] = _run(place, source) if is_file(reference) else _imported(place)
    module = _loaded[key]
    if not hasattr(module, name):
        known = [each for each in vars(module) if not each.startswith("_")]
        raise CodeError(f"{place} has no `{name}`.{did_you_mean(name, known)}")
    return getattr(module, name)


def give_texts(texts: Mapping[str, str]) -> None:
    """Take these texts in place of the files of those paths, as a worker does."""
    _given.update(texts)


def place_in(error: BaseException) -> str:
    """Return the exception of a user's code with the file and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f", line {frames[-1].lineno} of {Path(frames[-1].filename).name}" if frames else ""
    if isinstance(error, SyntaxError):  # it names its own
        where = ""
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}{where}"


def _imported(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except Exception as error:
        raise CodeError(f"{place} must be importable, but raised {place_in(error)}.") from error


def _run(place: str, source: Source) -> ModuleType:
    """Return a new module made of a file's text."""
    name = f"user_code_{Path(place).stem}_{source.sha256[:8]}"
    module = ModuleType(name)
    module.__file__ = place
    sys.modules[name] = module  # dataclasses and pickle look for it there
    # a worker has no such file: tracebacks show lines of the text
    linecache.cache[place] = (len(source.text), None, source.text.splitlines(True), place)
    try:
        exec(compile(source.text, place, "exec"), vars(module))
    except Exception as error:
        del sys.modules[name]
        raise CodeError(f"{place} must be importable, but raised {place_in(error)}.") from error
    return module
