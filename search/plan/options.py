"""Command lines of searches: flags, their values, and the exit codes of every command."""

from __future__ import annotations

import argparse
import json
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import spaces
from trainer.cli import OneLineParser, UsageError, ignore_closed_output, require_once
from trainer.config import ConfigError

from .config import GUARD, LOGS, OBJECTIVES, RUNS, SAMPLERS, SCHEDULERS
from .errors import Refused, RunError, SearchFailed
from .interrupts import INTERRUPTED, interruptible

RESOURCE_FLAGS = (
    "max_concurrent",
    "cpus_per_trial",
    "gpus_per_trial",
    "trial_timeout_s",
    "address",
)
"""Fields of `resource_flags`, which may differ from machine to machine."""
TYPES: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys(("N", "INT"), int),
    **dict.fromkeys(("CPUS", "GPUS", "SECONDS"), float),
    **dict.fromkeys((",".join(OBJECTIVES), "|".join(LOGS)), lambda text: tuple(text.split(","))),
}
DESTS = {
    "--trial-timeout": "trial_timeout_s",
    "--set": "settings",
    "--range": "ranges",
    "--space": "space_from",
}
"""Flags with a value of another name than theirs."""
CHANGES = ("settings", "ranges", "choices")
"""Flags that have several values, `NAME=...`."""
CONFIG_FILE = "run.toml"
"""Name, in a run, of the file that `--config` named."""


def run_command(
    parser: argparse.ArgumentParser,
    act: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
    again: str = "run the same command again",
) -> int:
    """Run a command and return its exit code: that of `act`, or 1 if the search ended itself, 2 if
    the request is impossible and 130 if it was interrupted, when `again` is printed as a remedy.
    """
    with ignore_closed_output():
        try:
            with interruptible():
                return act(parser.parse_args(argv))
        except KeyboardInterrupt as interrupt:
            signal = f" by {interrupt}" if str(interrupt) else ""
            print(f"\ninterrupted{signal}; nothing is lost: {again}", file=sys.stderr)
            return INTERRUPTED
        except SearchFailed as error:
            print(f"failed: {error}", file=sys.stderr)
            return 1
        except (ConfigError, Refused, RunError) as error:
            print(f"{parser.prog.removeprefix('python -m ')}: {error}", file=sys.stderr)
            return 2


def given(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Return those of the named flags that the command line has, with their values."""
    values = {name: getattr(args, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def flag_of(name: str, value: Any) -> str:
    """Return the flag that sets a field of the plan, with its value, as on a command line."""
    flag = next((f for f, dest in DESTS.items() if dest == name), f"--{name.replace('_', '-')}")
    words = value if isinstance(value, tuple | list) else ("none" if value is None else value,)
    return " ".join(map(str, (flag, *(words or ("none",)))))


def add_flags(p: argparse.ArgumentParser, flags: Mapping[str, str]) -> None:
    """Add flags from a table of "--flag METAVAR" and help; the METAVAR has its type in `TYPES`,
    a flag without one is a switch, and one of NAME=... may have several. The latter and --log may
    be given again."""
    for flag, text in flags.items():
        name, _, metavar = flag.partition(" ")
        if metavar:
            more: dict[str, Any] = {"dest": DESTS.get(name), "metavar": metavar, "help": text}
            if metavar.startswith("NAME="):
                more |= {"nargs": "+", "action": "extend"}
            elif name == "--log":
                more["action"] = "extend"
            p.add_argument(name, type=TYPES.get(metavar, str), **more)
        else:
            p.add_argument(name, action="store_true", help=text)


def resource_flags(default: str | None = None) -> dict[str, str]:
    """Return the table of the flags for machines and for what a trial may take of them; `default`
    replaces each flag's own default in its help."""
    flags = {
        "--max-concurrent N": ("trials at a time", "as many as the resources hold"),
        "--cpus-per-trial CPUS": ("fractions share a core", "1"),
        "--gpus-per-trial GPUS": (
            "fractions share a GPU; 0 is the CPU",
            "0.25 where there is a GPU, or else 0",
        ),
        "--trial-timeout SECONDS": ("a trial that reports nothing for so long is ended", "1800"),
        "--address ADDRESS": ("of a Ray cluster, auto on one; local is a Ray of its own", "local"),
    }
    return {flag: f"{text}; default: {default or own}" for flag, (text, own) in flags.items()}


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m search.run`."""
    p = OneLineParser(
        prog="python -m search.run",
        description="Search the hyperparameters of RIS covariance learning with Ray Tune and "
        "Optuna, and write Parquet tables to OUT/NAME.",
        epilog="Exit codes: 0 done, 1 the search failed, 2 bad usage, 130 interrupted.",
        allow_abbrev=False,
    )
    presets = (f"{s.name}: {s.about[0].lower()}{s.about[1:]}" for s in spaces.PRESETS.values())
    add_flags(p, {"--preset PRESET": f"default local. {'; '.join(presets)}"} | FLAGS)
    return p


FLAGS = {
    f"--budget {'|'.join(spaces.BUDGETS)}": "whole (default), or reduced: the preset full on two "
    "cores, in 90 minutes",
    "--trials N": "how many; default: the preset's",
    "--name RUN": "of the run; default PRESET-DATE-TIME",
    "--out DIR": f"folder of runs, or s3://bucket/prefix (gs://, ...); default {RUNS}",
    "--seed INT": "of sampler and trainings; default 0",
    "--epochs N": "budget of a trial; default: the preset's",
    "--space FILE.py:NAME": "your own space in place of a preset (or package.module:NAME); "
    "docs/own_code.md",
    "--network FILE.py:NAME": "your own network in every trial: --set network.kind=FILE.py:NAME; "
    "--choices network.kind=unrolled,FILE.py:NAME searches it beside ours",
    "--loss FILE.py:NAME": "your own loss term: --set loss.term=FILE.py:NAME, and loss.weight=1 "
    "unless it is fixed or searched",
    "--trainable FILE.py:NAME": "your own trainer, a generator of reports, in place of ours, with "
    "its own --space; docs/own_code.md",
    "--objective NAME[:min|max]": "a number of its reports to minimise, or maximise",
    "--set NAME=VALUE": "fix any field of the configuration, as scene.num_antennas=8 or "
    "network.kind=unrolled; docs/configuration.md lists them",
    "--range NAME=LOW:HIGH[:log]": "search a number in this range, whether or not the preset does",
    "--choices NAME=a,b": "search these values of a field",
    f"--scheduler {'|'.join(SCHEDULERS)}": "asha (default) stops weak trials at rungs, hyperband "
    "at later rungs too, median at any epoch; none lets all of them finish",
    f"--sampler {'|'.join(SAMPLERS)}": "tpe (default); with random or qmc, trial i depends on the "
    "seed and i alone",
    f"--objectives {','.join(OBJECTIVES)}": "default capped_error; with cost (seconds per epoch) "
    "too, the report has the Pareto front",
    f"--guard {'|'.join(GUARD)}": "on (default): a trial above LMMSE-MUSIC at a reported SNR is "
    "marked, and best only if every completed one is; off compares none",
    "--start-from MODEL": "begin every trial with the weights of this model, also on another "
    "panel or in another region; its network is that of all trials, and the run keeps a copy",
    "--warm-start RUN": "tell the sampler the trials of an earlier run of the same space first",
    **resource_flags(),
    "--resume RUN": "continue a run (name under --out, or path): finished trials are kept, "
    "unfinished ones go on from their checkpoints; needs no other flag, --trials N extends it",
    "--attach RUN": "follow a search that another process drives, and exit as it does",
    "--accept-space-change": "resume although the space is not the one that the run began with",
    f"--log {'|'.join(LOGS)}": "log every trial there too; may be given again; with "
    "--resume, --log none leaves all out",
    "--no-preflight": "skip the checks of storage, eigendecompositions and, in long plans, "
    "networks",
    "--config FILE": "TOML file of flags, such as trials = 64, with the tables [set], [range] and "
    "[choices]; flags of the command line win; kept in the run",
    "--dry-run": "print the plan and ten sampled configurations; start nothing",
}
"""Flags of `search.run` after --preset."""


def with_config_file(args: argparse.Namespace) -> argparse.Namespace:
    """Return the flags of a command line, and those of its `--config` that it leaves open, with
    the file's text as `config_text`.

    A field that the command line fixes or searches is left out of the file's changes.

    Raises:
        UsageError: if the file cannot be read, or holds something else than flags.
    """
    args.config_text = None
    _with_settings(args)
    if args.config is not None:
        try:
            args.config_text = Path(args.config).read_text()
            content = tomllib.loads(args.config_text)
            filed = _with_settings(parsed(content))
        except (OSError, ValueError) as error:
            raise UsageError(f"--config {args.config}: {error}") from None
        if filed.config is not None:
            raise UsageError(
                f"--config {args.config}: a file of flags names no other, but got "
                f"config = {filed.config!r}. Leave it out."
            )
        _add(filed, args)
    return _with_own_code(args)


def _add(filed: argparse.Namespace, args: argparse.Namespace) -> None:
    """Set the flags of a file that a command line leaves open."""
    named = {item.partition("=")[0] for name in CHANGES for item in getattr(args, name) or ()}
    for name, value in vars(filed).items():
        ours = getattr(args, name, None)
        if name in CHANGES:
            value = [item for item in value or () if item.partition("=")[0] not in named]
            setattr(args, name, [*value, *(ours or ())] or None)
        elif ours in (None, False):
            setattr(args, name, value)


def _with_settings(args: argparse.Namespace) -> argparse.Namespace:
    """Add the settings that `--network` and `--loss` stand for; raise UsageError for a name that
    is given twice."""
    for reference, name in ((args.network, "network.kind"), (args.loss, "loss.term")):
        if reference is not None:
            args.settings = [*(args.settings or ()), f"{name}={reference}"]
    for name in CHANGES:
        require_once(flag_of(name, "").split()[0], getattr(args, name) or ())
    return args


def _with_own_code(args: argparse.Namespace) -> argparse.Namespace:
    """Add the weight of a `--loss` that has none; raise UsageError for a flag that does not go
    with `--trainable`."""
    for flag in ("preset", "network", "loss", "start_from") if args.trainable is not None else ():
        if getattr(args, flag) is not None:
            raise UsageError(
                f"--trainable replaces all of our training, but got --{flag.replace('_', '-')} "
                "too. Leave one out."
            )
    given = [item for name in CHANGES for item in getattr(args, name) or ()]
    weighted = any(item.startswith("loss.weight=") for item in given)
    if args.loss is not None and f"loss.term={args.loss}" in given and not weighted:
        args.settings.append("loss.weight=1")
    return args


def parsed(flags: Mapping[str, Any]) -> argparse.Namespace:
    """Return the parsed command line of `search.run` with these flags, by their names without the
    leading dashes; raise UsageError for one that it refuses."""
    return parser().parse_args([word for item in flags.items() for word in _words(*item)])


def _words(name: str, value: Any) -> Iterator[str]:
    """Yield a flag as words of a command line."""
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, dict):
        separator = {"--range": ":", "--choices": ","}.get(flag)
        yield flag
        yield from (f"{field}={_text(one, separator)}" for field, one in dotted(value))
    elif isinstance(value, list | tuple) and DESTS.get(flag, name) in CHANGES:
        yield from (flag, *map(str, value))
    elif not isinstance(value, bool):
        yield f"{flag}={_text(value, ',')}"
    elif value:
        yield flag


def dotted(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested tables by their dotted names."""
    for name, value in table.items():
        if isinstance(value, dict):
            yield from dotted(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _text(value: Any, separator: str | None) -> str:
    if isinstance(value, list | tuple) and separator is not None:
        return separator.join(_text(one, None) for one in value)
    return value if isinstance(value, str) else json.dumps(value, default=str)
