"""Command lines of searches: flags, their values, and the exit codes of every command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import spaces
from trainer.cli import OneLineParser, ignore_closed_output
from trainer.config import ConfigError

from .config import OBJECTIVES, RUNS, SAMPLERS, SCHEDULERS
from .errors import Refused, RunError, SearchFailed
from .interrupts import INTERRUPTED, interruptible

RESOURCE_FLAGS = (
    *("max_concurrent", "cpus_per_trial", "gpus_per_trial", "trial_timeout_s", "address"),
)
"""Flags of `add_resource_flags`, which may differ from machine to machine."""


def run_command(
    parser: argparse.ArgumentParser,
    act: Callable[[argparse.Namespace], int],
    argv: Sequence[str] | None,
    again: str = "run the same command again",
) -> int:
    """Run a command and return its exit code: that of `act`, or 1 if the search ended itself, 2 if
    the request is impossible and 130 if it was interrupted.

    Args:
        parser: of the command line.
        act: the command, given the parsed flags.
        argv: arguments; None is those of the process.
        again: remedy after an interruption.
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
            print(f"it ended itself: {error}", file=sys.stderr)
            return 1
        except (ConfigError, Refused, RunError) as error:
            print(f"{parser.prog.removeprefix('python -m ')}: {error}", file=sys.stderr)
            return 2


def given(args: argparse.Namespace, names: Iterable[str]) -> dict[str, Any]:
    """Return those of the named flags that the command line has, with their values."""
    values = {name: getattr(args, name) for name in names}
    return {name: value for name, value in values.items() if value is not None}


def add_resource_flags(p: argparse.ArgumentParser, default: str | None = None) -> None:
    """Add the flags for machines and for what a trial may take of them.

    Args:
        default: replaces each flag's own default in its help.
    """

    def or_default(own: str) -> str:
        return f"default: {default or own}"

    p.add_argument(
        "--max-concurrent",
        type=int,
        metavar="N",
        help=f"trials at a time; {or_default('as many as the resources hold')}",
    )
    p.add_argument(
        "--cpus-per-trial",
        type=float,
        metavar="CPUS",
        help=f"fractions share a core; {or_default('1')}",
    )
    p.add_argument(
        "--gpus-per-trial",
        type=float,
        metavar="GPUS",
        help="fractions share a GPU; 0 is the CPU; "
        + or_default("0.25 where there is a GPU, or else 0"),
    )
    p.add_argument(
        "--trial-timeout",
        type=float,
        metavar="SECONDS",
        dest="trial_timeout_s",
        help=f"a trial that reports nothing for so long is ended; {or_default('1800')}",
    )
    p.add_argument(
        "--address",
        metavar="ADDRESS",
        help=f"of a Ray cluster, auto on one; local is a Ray of its own; {or_default('local')}",
    )


def parser() -> argparse.ArgumentParser:
    """Return the parser of `python -m search.run`."""
    p = OneLineParser(
        prog="python -m search.run",
        description="Search the hyperparameters of RIS covariance learning with Ray Tune and "
        "Optuna, and write Parquet tables to OUT/NAME.",
        epilog="Exit codes: 0 done, 1 the search failed, 2 bad usage, 130 interrupted.",
        allow_abbrev=False,
    )
    presets = "; ".join(
        f"{s.name}: {s.about[0].lower()}{s.about[1:]}" for s in spaces.PRESETS.values()
    )
    p.add_argument("--preset", metavar="PRESET", help=f"default local. {presets}")
    p.add_argument("--trials", type=int, metavar="N", help="how many; default: the preset's")
    p.add_argument("--name", metavar="RUN", help="of the run; default PRESET-DATE-TIME")
    p.add_argument(
        "--out",
        metavar="DIR",
        help=f"folder of runs, or s3://bucket/prefix (gs://, ...); default {RUNS}",
    )
    p.add_argument("--seed", type=int, metavar="INT", help="of sampler and trainings; default 0")
    p.add_argument(
        "--epochs", type=int, metavar="N", help="budget of a trial; default: the preset's"
    )
    p.add_argument(
        "--scheduler",
        metavar="|".join(SCHEDULERS),
        help="asha (default) stops weak trials at rungs, hyperband at later rungs too, median "
        "at any epoch; none lets all of them finish",
    )
    p.add_argument(
        "--sampler",
        metavar="|".join(SAMPLERS),
        help="tpe (default); with random or qmc, trial i depends on the seed and i alone",
    )
    p.add_argument(
        "--objectives",
        metavar=",".join(OBJECTIVES),
        type=lambda text: tuple(text.split(",")),
        help="default capped_error; with cost (seconds per epoch) too, the report has the Pareto "
        "front",
    )
    p.add_argument(
        "--warm-start",
        metavar="RUN",
        help="tell the sampler the trials of an earlier run of the same space first",
    )
    add_resource_flags(p)
    p.add_argument(
        "--resume",
        metavar="RUN",
        help="continue a run (name under --out, or path): finished trials are kept, unfinished "
        "ones go on from their checkpoints; needs no other flag, --trials N extends it",
    )
    p.add_argument(
        "--attach",
        metavar="RUN",
        help="follow a search that another process drives, and exit as it does",
    )
    p.add_argument(
        "--accept-space-change",
        action="store_true",
        help="resume although the space is not the one that the run began with",
    )
    p.add_argument(
        "--no-preflight",
        action="store_true",
        help="skip the checks of storage, eigendecompositions and, in long plans, networks",
    )
    p.add_argument(
        "--dry-run",
        action="store_true",
        help="print the plan and ten sampled configurations; start nothing",
    )
    return p
