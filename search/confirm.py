"""`python -m search.confirm`: are the finalists as good as the search says?

The best of many trials owes part of its place to luck: its seed, its validation scenes. Here every
finalist is trained anew on fresh seeds, none of them stopped early, and scored on fresh scenes,
next to the classical methods and the bound.

Exit codes: 0 confirmed; 1 no training completed; 2 it was asked for something impossible, and
nothing was touched; 130 it was interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from search.plan import run_command
from search.reruns import RerunRequest, parser


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    p = parser(
        "search.confirm",
        "Trains a run's best trials again, on fresh training seeds, scores them on fresh scenes "
        "and prints the confirmed leaderboard. Writes RUN/confirmations, RUN/scenes and "
        "RUN/reruns; a command that was killed goes on when it is given again.",
    )
    return run_command(p, confirm, argv)


def confirm(args: argparse.Namespace) -> int:
    """Reruns the finalists and shows what came of it."""
    asked = RerunRequest.of(args)
    finalists = asked.trials[: asked.top]
    trainings = [one for trial in finalists for one in asked.trainings(trial, {})]
    print(asked.describe(trainings), flush=True)
    if args.dry_run:
        return 0
    from search.reruns import session

    with session(asked.store, asked.plan) as reruns:
        failed = reruns.train(trainings)
        kept = [one for one in trainings if one.name not in failed]
        reruns.score(kept, asked.fresh, beside=asked.config(finalists[0]))
    from search.report.analysis import confirmed

    print(f"\n{confirmed.text(asked.store.path)}")
    for name, outcome in failed.items():
        print(f"{outcome}: {name}, see {asked.store.path}/reruns/failures")
    print(f"\nablate:   python -m search.ablate {asked.store.path} --term eigengap")
    if not kept:
        print("no training completed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
