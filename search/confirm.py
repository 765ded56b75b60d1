"""`python -m search.confirm`: train a run's best trials again and score them on fresh scenes.

The best of many trials owes part of its place to luck: its seed, its validation scenes. Here every
finalist is trained anew on fresh seeds, none of them stopped early, and scored on fresh scenes,
next to the classical methods and the bound.

Trials of a user's own trainer are compared by its objective on fresh seeds alone.

Exit codes: 0 confirmed; 1 no training completed; 2 the request is impossible, and
nothing was touched; 130 it was interrupted.
"""

import argparse
import sys
from collections.abc import Sequence

from search.plan import run_command
from search.reruns import RerunRequest, open_session, parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    p = parser(
        "search.confirm",
        "Train a run's best trials again, on fresh training seeds, score them on fresh scenes and "
        "print the confirmed leaderboard. Writes RUN/confirmations, RUN/scenes and RUN/reruns; a "
        "command that was killed goes on when it is given again.",
    )
    return run_command(p, confirm, argv)


def confirm(args: argparse.Namespace) -> int:
    """Rerun the finalists and print the confirmed leaderboard."""
    request = RerunRequest.from_flags(args, own=True)
    finalists = request.trials[: request.top]
    reruns = [one for trial in finalists for one in request.reruns(trial, {})]
    print(request.describe(reruns), flush=True)
    if args.dry_run:
        return 0
    with open_session(request) as work:
        failed = work.train(reruns)
        completed = [one for one in reruns if one.name not in failed]
        if not request.own:
            work.score(completed, confirmed=request.config(finalists[0]))
    from search.report.analysis import confirmed
    from search.report.data import load

    path = request.store.path
    run = load(path)
    told = confirmed.own_text(run, load(work.trained.path)) if request.own else confirmed.text(run)
    print(f"\n{told}")
    for name, outcome in failed.items():
        print(f"{outcome}: {name}, see {path}/reruns/failures")
    if not request.own:
        print(f"\nablate:   python -m search.ablate {path} --term eigengap")
    if not completed:
        print("no training completed", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
