"""Command lines: usage errors in one line with exit code 2; output that never ends a command."""

import argparse
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from trainer.atomic import require_output
from trainer.config import ConfigError, did_you_mean, parse_value


class UsageError(ConfigError):
    """Bad usage of a command line; the message has the rule, the value and the remedy."""


class OneLineParser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises UsageError instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse found, with a did-you-mean for a misspelt option or verb."""
        strange = re.findall(r"--[\w-]+", message.partition("unrecognized arguments:")[2])
        strange += re.findall(r"invalid choice: '([^']*)'", message)
        known = list(self.options())
        nearest = "".join(did_you_mean(word, known) for word in strange)
        raise UsageError(f"{message}.{nearest}" if nearest else message)

    def options(self) -> Iterator[str]:
        """Yield every option and verb, and the options of the verbs."""
        for action in self._actions:
            yield from action.option_strings
            for verb, parser in action.choices.items() if isinstance(action.choices, dict) else ():
                yield verb
                yield from parser.options()


@contextmanager
def ignore_closed_output() -> Iterator[None]:
    """Drop what is printed in the context once nobody reads it, and replace characters that the
    encoding of the output lacks, instead of failing."""
    for name in ("stdin", "stdout", "stderr"):  # in the order of their descriptors
        if getattr(sys, name) is None:  # closed: else a file opened later takes the descriptor
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, _Output(before[0], "stdout"))
    sys.stderr = cast(TextIO, _Output(before[1], "stderr"))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before


class _Output:
    """A text stream that replaces characters outside its encoding, and drops text after the first
    write that fails."""

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding
            return self._stream.write(text.encode(encoding, "replace").decode(encoding))
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        # redirect the descriptor: text that is still buffered must go somewhere at the end
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self._stream.fileno())
        os.close(null)
        if self._name != "stderr":
            reason = f"{self._name} takes no more text ({error.strerror})"
            print(f"{reason}; going on without", file=sys.stderr)


def parse_settings(items: Iterable[str]) -> dict[str, Any]:
    """Parse `NAME=VALUE` arguments, each value as the type of its field.

    Raises:
        ConfigError: for one without `=`, a name given twice, an unknown one, or a value of another
            type.
    """
    items = list(items)
    require_once("--set", items)
    return {name: parse_value(name, text) for name, text in split_settings("--set", items)}


def require_once(flag: str, items: Iterable[str]) -> None:
    """Raise UsageError if two of `NAME=TEXT` have the same name."""
    known: dict[str, str] = {}
    for item in items:
        name = item.partition("=")[0]
        if name in known:
            raise UsageError(
                f"`{flag}` has each name once, but got {known[name]} and {item}. Leave one out."
            )
        known[name] = item


def split_settings(flag: str, items: Iterable[str]) -> list[tuple[str, str]]:
    """Return names and texts of `NAME=TEXT` arguments; raise UsageError for one without `=`."""
    pairs = [item.partition("=") for item in items]
    if wrong := [name for name, equals, _ in pairs if not equals]:
        raise UsageError(
            f"`{flag}` takes NAME=VALUE, but got {wrong[0]!r}. Put an `=` in between."
        )
    return [(name, text) for name, _, text in pairs]


def add_localise_flags(p: argparse.ArgumentParser) -> None:
    """Add the flags that `trainer localise` and `search.localise` share."""
    by = p.add_mutually_exclusive_group(required=True)
    by.add_argument("--model", type=Path, help="a model folder, or the run that left one")
    by.add_argument(
        "--method",
        metavar="NAME",
        help="sml, posterior, lmmse_music+scoring, ...: without a network",
    )
    p.add_argument(
        "--readout",
        choices=("music", "posterior"),
        default="music",
        help="of a model: MUSIC on its covariance, or the posterior under the law of its scenes",
    )
    p.add_argument("--scenes", type=Path, required=True, help="a recording, .npz")
    p.add_argument("--out", type=Path, required=True, help="file to write")
    add_search_flags(p)


def add_search_flags(p: argparse.ArgumentParser) -> None:
    """Add the flags that say how many sources are searched, and where."""
    p.add_argument(
        "--num-sources",
        metavar="K|auto",
        help="of every scene; auto estimates it, by a model or posterior from 0. "
        "Default: as recorded, or else auto",
    )
    p.add_argument(
        "--range-m",
        type=float,
        nargs=2,
        metavar=("MIN", "MAX"),
        help="ranges to search [m]; default: those of the training, or by the panel's size",
    )
    for angle in ("azimuth", "elevation"):
        p.add_argument(
            f"--{angle}-deg",
            type=float,
            metavar="MAX",
            help=f"largest {angle} to search, to both sides [deg]; default: the training's, or "
            "60 and 30",
        )
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def localise_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return the arguments of `trainer.localisation.localise` that these flags stand for.

    Raises:
        UsageError: if the estimates would replace the recording, or K is no count.
        ConfigError: if they cannot be written there.
    """
    if args.out.resolve() == args.scenes.resolve():
        raise UsageError(
            f"--out must be another file than --scenes, but both are {args.out}. Choose another."
        )
    require_output(args.out, "--out")
    named = {"model": args.model, "method": args.method, "scenes": args.scenes}
    named["readout"] = args.readout
    return named | search_arguments(args) | {"diagnosed": True}


def search_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the flags of `add_search_flags` stand for.

    Raises:
        UsageError: if K is no count.
    """
    given = args.num_sources
    if given not in (None, "auto") and not given.isdecimal():
        raise UsageError(f"--num-sources is a count or auto, but got {given!r}. Leave it out.")
    return {
        "num_sources": {None: "known", "auto": "estimated"}.get(given) or int(given),
        "range_m": args.range_m and tuple(args.range_m),
        "azimuth_deg": args.azimuth_deg,
        "elevation_deg": args.elevation_deg,
        "device": args.device,
    }
