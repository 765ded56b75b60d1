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


def read_record(path: Path) -> dict[str, Any]:
    """A JSON record that has `params`.

    Raises:
        ConfigError: if there is none, or it is damaged.
    """
    record = _read_object(path)
    return record if "params" in record else {"params": record}


def _read_object(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        known = sorted(p.stem for p in path.parent.glob("*.json"))
        hint = f" The folder has {', '.join(known[:8])}." if known else ""
        raise ConfigError(f"a record must exist, but {path} does not.{hint}") from None
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"a record must be readable JSON, but {path} is not: {error}."
        ) from error
    if not isinstance(record, dict):
        raise ConfigError(f"a record must be a JSON object, but {path} holds none.")
    return record


def read_trial(run: Path, trial: str) -> dict[str, Any]:
    """What a run's trial was to be, and how it ended, if it has.

    Raises:
        ConfigError: if there is no such trial, or its files are damaged.
    """
    record = read_record(run / "configs" / f"{trial}.json")
    own = run / "endings" / f"{trial}.json"  # unless it shares those of another trial
    shared = [file for file in sorted(run.glob("endings/[!._]*.json")) if file != own]
    damaged: ConfigError | None = None
    for file in [own] * own.exists() + shared:
        try:
            ending = _read_object(file).get(trial)
        except ConfigError as error:
            damaged = damaged or error
            continue
        if ending is not None:
            return {**record, **ending}
    waiting = _read_waiting(run / ".ended.jsonl").get(trial)
    if waiting is None and damaged is not None:
        raise damaged
    return {**record, **(waiting or {})}


def _read_waiting(journal: Path) -> dict[str, dict[str, Any]]:
    """How trials ended whose endings no file has yet, by their ids; torn lines left out."""
    found = {}
    for line in journal.read_text().splitlines() if journal.exists() else ():
        try:
            ended = json.loads(line)
            found[ended["trial"]["trial_id"]] = ended["ending"]
        except (ValueError, KeyError):
            continue
    return found


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
