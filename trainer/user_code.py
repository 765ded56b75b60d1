"""Code of a user by reference: `path/to/file.py:name`, or `package.module:name`.

A file is loaded on its own, whatever `sys.path` is; a module is imported. What is run is what was
recorded: a file whose SHA-256 is another than expected is refused by name, and so is a module of
the user's that it imports: one in its folder, in that of the command, or in its package. Workers
get the text of a file from their driver (`give_texts`).
"""

import ast
import hashlib
import importlib
import importlib.util
import inspect
import linecache
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from types import ModuleType
from typing import Any

from trainer.config import ConfigError, did_you_mean, is_reference

HASHED = {"network.kind": "network.sha256", "loss.term": "loss.sha256"}
"""Fields that may hold a reference, and those with the hash of its code."""
OURS = ("search", "spaces", "trainer")
"""Packages of the project, whose code a run records by its commit."""
_given: dict[str, "Source"] = {}
"""Sources by the path of their file, as references have it, in place of the files."""
_loaded: dict[tuple[str, str], ModuleType] = {}
"""Modules by path and hash."""
_texts: dict[str, str] = {}
"""Texts of the user's modules that are imported, by the path of the file."""


class CodeError(ConfigError):
    """Code of a user that cannot be run: missing, changed, broken, or against its contract."""


@dataclass(frozen=True)
class Source:
    """The text that a reference stands for, the absolute path of its file, and the texts of the
    user's modules that it imports, by names as `helper.py` and `package/module.py`."""

    path: str
    text: str
    modules: tuple[tuple[str, str], ...] = ()

    @property
    def sha256(self) -> str:
        """Hash of the text, in hexadecimal; after it, `name:hash` of each module."""
        return " ".join([_hash(self.text), *(f"{n}:{_hash(t)}" for n, t in self.modules)])


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
        return _given[place]
    path = os.path.abspath(place)
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
        text = Path(path).read_text(encoding="utf-8")
        if is_file(reference):
            return Source(path, text, _modules(_imports(text), Path(path).parent))
        top = place.partition(".")[0]
        whole = package_path(place)  # None if it is installed
        return Source(path, text, () if whole is None else _modules({top}, Path(whole).parent))
    except (OSError, UnicodeDecodeError) as error:
        raise CodeError(
            f"`{reference}` must name a file that can be read, but {path} cannot ({error}). "
            "Paths are those of this command's folder; a run keeps a copy in its folder `code`."
        ) from None


def require_unchanged(reference: str, sha256: str) -> Source:
    """Return the source of a reference; raise CodeError if its hash is another."""
    source = source_of(reference)
    was, now = _hashes(sha256), _hashes(source.sha256)
    for name in sorted(was.keys() & now.keys()):  # one that is missing fails to be imported
        if was[name] != now[name]:
            imported = f", which {source.path} imports," if name else ""
            raise CodeError(
                f"{name or source.path}{imported} has changed: its SHA-256 is "
                f"{now[name][:12]}..., and {was[name][:12]}... was recorded. Put it "
                "back (a run keeps a copy in its folder `code`), or start a new run with the "
                "changed one; for a --trainable, --warm-start OLD --name NEW tells it the old "
                "one's trials."
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
        module = _run(place, source) if is_file(reference) else _imported(place)
        _require_imported(source)
        _loaded[key] = module
    module = _loaded[key]
    if not hasattr(module, name):
        known = [each for each in vars(module) if not each.startswith("_")]
        raise CodeError(f"{place} has no `{name}`.{did_you_mean(name, known)}")
    return getattr(module, name)


_PLAIN = {
    str(written): kind
    for plain, kind in ((int, Integral), (float, Real), (str, str), (bool, bool))
    for written in (plain, plain.__name__)
}
"""Annotations of arguments whose values are checked, and what these must be."""


def bind(
    reference: str,
    sha256: str | None,
    positional: tuple[str, ...],
    arguments: tuple[tuple[str, Any], ...],
) -> partial[Any]:
    """Return a user's function or class with keyword arguments.

    Args:
        positional: names of what it is called with beside them.
        arguments: names and values.

    Raises:
        CodeError: if it does not take them, with a did-you-mean, or as `load` does.
    """
    found = load(reference, sha256)
    if not callable(found):
        raise CodeError(f"`{reference}` must be a class or function, but is {found!r}.")
    given, signature = dict(arguments), inspect.signature(found)
    name = reference.rpartition(":")[2]
    try:
        signature.bind(*positional, **given)
    except TypeError as error:
        unknown = next((name for name in given if name not in signature.parameters), "")
        hint = did_you_mean(unknown, signature.parameters)
        raise CodeError(
            f"`{reference}` is called as {name}({', '.join([*positional, *given])}), "
            f"but takes {signature}: {error}.{hint}"
        ) from None
    for each, value in given.items():
        parameter = signature.parameters.get(each)
        wanted = _PLAIN.get(str(parameter.annotation)) if parameter else None
        apart = isinstance(value, bool) != (wanted is bool)  # a bool is an int to Python
        if wanted and (apart or not isinstance(value, wanted)):
            raise CodeError(f"`{reference}` takes `{parameter}`, but got {value!r} for it.")
    return partial(found, **given)


def with_hashes(
    params: Mapping[str, Any], known: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Return a configuration's parameters with the hash of each code of the user's: the `known`
    one by its reference, or that of now."""
    hashes = {}
    for name, where in HASHED.items():
        reference = str(params.get(name, ""))
        if is_reference(reference) and params.get(where) is None:
            hashes[where] = (known or {}).get(reference) or source_of(reference).sha256
    return {**params, **hashes}


def package_path(module: str) -> str | None:
    """Return the path of a module's topmost package, or of the module alone; None for one that is
    installed."""
    try:
        found = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return None
    places = [] if found is None else [*(found.submodule_search_locations or ()), found.origin]
    path = next((place for place in places if place), None)
    return None if path is None or "site-packages" in path else path


def give_texts(texts: Mapping[str, Source]) -> None:
    """Take these sources in place of the files of those paths, as a worker does."""
    _given.update(texts)


def place_in(error: BaseException) -> str:
    """Return the exception of a user's code with the file and line that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f", line {frames[-1].lineno} of {Path(frames[-1].filename).name}" if frames else ""
    if isinstance(error, SyntaxError):  # it names its own
        where = ""
    text = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {text}{where}"


def told(error: BaseException) -> str | None:
    """Return the exception with the innermost line of a user's code that led to it, and that line;
    None if it did not come through such code."""
    own = {*_texts, *(module.__file__ for module in _loaded.values())}
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename in own]
    if not frames:
        return None
    text, last = str(error).partition("\n")[0], frames[-1]
    where = f"line {last.lineno} of {last.filename}"
    return f"code of yours raised {type(error).__name__}: {text}, {where}:\n    {last.line}"


@contextmanager
def no_exit() -> Iterator[None]:
    """Raise RuntimeError where a user's code ends the process in the context, with the traceback
    of that line: a worker would take it for a good end."""
    try:
        yield
    except SystemExit as error:
        said = f"code of a search must return or raise, but called sys.exit({error.code!r})"
        raise RuntimeError(said).with_traceback(error.__traceback__) from None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _hashes(record: str) -> dict[str, str]:
    """Return the hashes in a `Source.sha256` by the names of modules; that of the file by ""."""
    first, *more = record.split()
    return {"": first} | dict(one.rsplit(":", 1) for one in more)


def _imports(text: str) -> set[str]:
    """Return the topmost names of the modules that a text imports anywhere; none of a text that is
    no Python, which fails when it is run."""
    try:
        nodes = list(ast.walk(ast.parse(text)))
    except SyntaxError:
        return set()
    found = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    found |= {n.module or "" for n in nodes if isinstance(n, ast.ImportFrom) and not n.level}
    return {name.partition(".")[0] for name in found} - {"", *OURS, *sys.stdlib_module_names}


def _modules(names: set[str], folder: Path) -> tuple[tuple[str, str], ...]:
    """Return the texts of the modules of these names, and of those that they import, by the names
    of the files: only of those in the folder, or that of the command. Of a package it is all
    files, but not what these import: the longest ones take seconds to parse."""
    here = {folder.resolve(), Path.cwd()}
    found: dict[str, str] = {}
    known, left = set(names), list(names)
    while left:
        path = package_path(left.pop())
        if path is None or (top := Path(path).resolve()).parent not in here:
            continue
        for file in sorted(top.rglob("*.py")) if top.is_dir() else [top]:
            name = file.relative_to(top.parent)
            if all(part.isidentifier() for part in name.with_suffix("").parts):
                found[name.as_posix()] = file.read_text(encoding="utf-8")
        new = set() if top.is_dir() else _imports(found[top.name]) - known
        known |= new
        left += new
    return tuple(sorted(found.items()))


def _require_imported(source: Source) -> None:
    """Raise CodeError if what Python has imported of the source's modules are other texts."""
    for name, text in source.modules:
        dotted = name.removesuffix(".py").replace("/", ".").removesuffix(".__init__")
        file = getattr(sys.modules.get(dotted), "__file__", None)
        if file is None:
            continue
        on_disk = Path(file).read_text(encoding="utf-8")
        if not text == on_disk == _texts.setdefault(file, text):
            raise CodeError(
                f"{name}, which {source.path} imports, has changed since the search began or this "
                "process imported it. Put it back, or start anew with the changed one: in a new "
                "process, as a restarted kernel."
            )


def _imported(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except (Exception, SystemExit) as error:
        raise CodeError(f"{place} must be importable, but raised {place_in(error)}.") from error


def _run(place: str, source: Source) -> ModuleType:
    """Return a new module made of a file's text."""
    name = f"user_code_{Path(place).stem}_{source.sha256[:8]}"
    module = ModuleType(name)
    # on another machine there may be no such file
    module.__file__ = source.path if Path(source.path).exists() else place
    sys.modules[name] = module  # dataclasses and pickle look for it there
    # a worker has no such file: tracebacks show lines of the text
    linecache.cache[place] = (len(source.text), None, source.text.splitlines(True), place)
    try:
        exec(compile(source.text, place, "exec"), vars(module))
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise CodeError(f"{place} must be importable, but raised {place_in(error)}.") from error
    return module
