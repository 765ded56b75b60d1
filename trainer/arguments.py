"""Command lines that say what is wrong in one line, with the nearest option; exit code 2."""

import argparse
import difflib
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from .config import ConfigError


class UsageError(ConfigError):
    """A command line that cannot be meant; the message has the rule, the value and the remedy."""


class OneLineParser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises UsageError instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse found, with a did-you-mean for a misspelt option or verb."""
        strange = re.findall(r"--[\w-]+", message.partition("unrecognized arguments:")[2])
        strange += re.findall(r"invalid choice: '([^']*)'", message)
        known = list(self.options())
        for word in strange:
            for near in difflib.get_close_matches(word, known, n=1):
                message += f". Did you mean `{near}`?"
        raise UsageError(message)

    def options(self) -> Iterator[str]:
        """Every option and verb, those of the verbs included."""
        for action in self._actions:
            yield from action.option_strings
            for verb, parser in action.choices.items() if isinstance(action.choices, dict) else ():
                yield verb
                yield from parser.options()


def settings(items: Iterable[str]) -> dict[str, Any]:
    """What `NAME=VALUE` arguments say; a value that is no JSON is a string.

    Raises:
        UsageError: for one without `=`.
    """
    found: dict[str, Any] = {}
    for item in items:
        name, equals, text = item.partition("=")
        if not equals:
            raise UsageError(f"`--set` takes NAME=VALUE, but got {item!r}. Put an `=` in between.")
        try:
            found[name] = json.loads(text)
        except json.JSONDecodeError:
            found[name] = text  # a bare word is a string
    return found


def localise_options(p: argparse.ArgumentParser) -> None:
    """What `trainer localise` and `search.localise` ask for."""
    p.add_argument(
        "--model", type=Path, required=True, help="a model folder, or the run that left one"
    )
    p.add_argument("--scenes", type=Path, required=True, help="a recording, .npz")
    p.add_argument("--out", type=Path, required=True, help="file to write")
    p.add_argument(
        "--num-sources",
        metavar="K|auto",
        help="of every scene; auto asks the eigenvalues. Default: as recorded, or else auto",
    )
    p.add_argument(
        "--range-m",
        type=float,
        nargs=2,
        metavar=("MIN", "MAX"),
        help="ranges to search [m]; default: those of the training",
    )
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")


def localise_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """Arguments of `localisation.localise` that such a command line stands for.

    Raises:
        UsageError: if K is no count, or the estimates would take the place of the recording.
    """
    if args.out.resolve() == args.scenes.resolve():
        raise UsageError(
            f"--out must be another file than --scenes, but both are {args.out}. Choose another."
        )
    asked = args.num_sources
    if asked not in (None, "auto") and not asked.isdecimal():
        raise UsageError(f"--num-sources is a count or auto, but got {asked!r}. Leave it out.")
    return {
        "model": args.model,
        "scenes": args.scenes,
        "num_sources": int(asked) if asked and asked != "auto" else None,
        "know_sources": asked != "auto",
        "range_m": args.range_m and tuple(args.range_m),
        "device": args.device,
    }
