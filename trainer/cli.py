"""Command lines: refusals in one line with exit code 2, and output that survives a closed pipe."""

import argparse
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn, TextIO, cast

from trainer.config import ConfigError, did_you_mean


class UsageError(ConfigError):
    """A command line that cannot be meant; the message has the rule, the value and the remedy."""


class OneLineParser(argparse.ArgumentParser):
    """An `ArgumentParser` that raises UsageError instead of printing its usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """Raises what argparse found, with a did-you-mean for a misspelt option or verb."""
        strange = re.findall(r"--[\w-]+", message.partition("unrecognized arguments:")[2])
        strange += re.findall(r"invalid choice: '([^']*)'", message)
        known = list(self.options())
        nearest = "".join(did_you_mean(word, known) for word in strange)
        raise UsageError(f"{message}.{nearest}" if nearest else message)

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


class Lasting:
    """A stream that drops what nobody takes any more.

    Args:
        stream: where the text goes, until it is refused.
        name: of the stream, for the one line on stderr that says so.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        # the descriptor, not this object alone: what is buffered must go somewhere at the end
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if self._name != "stderr":
            said = f"{self._name} takes no more text ({error.strerror}); going on without"
            print(said, file=sys.stderr)


@contextmanager
def lasting() -> Iterator[None]:
    """Nothing printed in the context fails."""
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, Lasting(before[0], "stdout"))
    sys.stderr = cast(TextIO, Lasting(before[1], "stderr"))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before
