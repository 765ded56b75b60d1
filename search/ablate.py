"""`python -m search.ablate`: does a loss term, or a setting, help?

Two arms: the same configurations, training seeds and scenes, with and without. What both share
cancels in the paired difference; the answer is one sentence with its interval, whatever it is.

    python -m search.ablate RUN --term eigengap                    the term as the trials have it
    python -m search.ablate RUN --term eigengap --definition leak  with this definition's defaults
    python -m search.ablate RUN --set spectral.backend=svd         any other setting

Exit codes: 0 compared, or not because trainings did not complete, which is an answer too; 1 it
failed, or there are too few configurations; 2 it was asked for something impossible,
and nothing was touched; 130 it was interrupted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from search.plan import Rerun, run_command
from search.reruns import TERMS, RerunRequest, arm_changes, paired, parser
from spaces.blocks import ACTING
from trainer.cli import UsageError

if TYPE_CHECKING:
    from search.records import RunStore

MEANS = {
    "capped_error": "capped_error",
    "success": "success_rate",
    "source_number_found": "source_number_accuracy",
}
"""Columns of `scenes`, and of `ablations` for their means."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit code."""
    p = parser(
        "search.ablate",
        "Trains a run's best trials with and without a loss term (or a setting), on the same "
        "fresh seeds and scenes, and says whether it helps. Writes RUN/ablations, RUN/scenes, "
        "RUN/reruns and RUN/report; a command that was killed goes on when it is given again.",
    )
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--term",
        metavar="TERM",
        help=f"a loss term with a weight of its own: {', '.join(TERMS)}",
    )
    what.add_argument(
        "--set",
        action="append",
        metavar="NAME=VALUE",
        help="what the arm `with` has, e.g. spectral.backend=svd; may be given again",
    )
    p.add_argument(
        "--definition",
        metavar="DEFINITION",
        help=f"of the eigengap, with weight and margin at which it acts: {', '.join(ACTING)}; "
        "default: each trial's own, or else that of the run's best trial which has one",
    )
    p.add_argument("--name", metavar="NAME", help="of the ablation; default: what it is about")
    return run_command(p, ablate, argv)


def ablate(args: argparse.Namespace) -> int:
    """Trains both arms and shows the difference."""
    asked = RerunRequest.of(args)
    name = named(args)
    pairs, notes = paired(asked, args)
    trainings = [training for pair in pairs for _, training in pair.arms()]
    print(asked.describe(trainings))
    print(f"{'ablation':<10} {name}")
    for arm, changes in arm_changes(pairs):
        print(f"{arm:<10} {changes}")
    print(*notes, sep="\n", end="\n" * bool(notes), flush=True)
    if args.dry_run:
        return 0
    from search.reruns import session

    with session(asked.store, asked.plan) as reruns:
        failed = reruns.train(trainings)
        kept = [p for p in pairs if not {t.name for _, t in p.arms()} & set(failed)]
        scored = [training for pair in kept for _, training in pair.arms()]
        reruns.score(scored, asked.fresh)
        terms = {
            training.name: pair.with_.config
            for pair in kept
            if pair.with_.config.eigengap.weight > 0
            for _, training in pair.arms()
        }
        hinges = reruns.hinges(terms, asked.fresh)
    rows = [
        row
        for pair in kept
        for arm, training in pair.arms()
        for row in ablation_rows(asked, name, arm, training, hinges.get(training.name, []))
    ] + [
        row
        for pair in pairs
        for arm, training in pair.arms()
        if training.name in failed
        for row in incomplete_rows(asked, name, arm, training)
    ]
    asked.store.write_part("ablations", name, rows)
    notes += [f"{outcome}: {training}, its pair left out" for training, outcome in failed.items()]
    return print_verdict(asked.store, name, notes)


def named(args: argparse.Namespace) -> str:
    """The ablation's name.

    Raises:
        UsageError: for one that could not name a file.
    """
    from search.records import checked_name

    if args.name is not None:
        try:
            return checked_name(args.name)
        except ValueError as error:
            raise UsageError(f"--name: {error}") from None
    about = args.term or "-".join(args.set)
    text = f"{about}-{args.definition}" if args.definition else about
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text)


def ablation_rows(
    asked: RerunRequest, name: str, arm: str, training: Rerun, hinges: list[dict[str, float]]
) -> Iterator[dict[str, Any]]:
    """Rows of `ablations` for one training: its scores, and how the term stood there.

    Of the scenes that were asked for and no others: a training that is confirmed too has more,
    and over those its mean does not pair with the other arm's.
    """
    stood = {(row["snr_db"], row["num_sources"]): row for row in hinges}
    wanted = asked.fresh.evaluation(training.config).report_snr_db
    scenes = asked.store.read("scenes", training.name)
    scenes = scenes[
        (scenes["evaluation_seed"] == asked.fresh.seed)
        & (scenes["scene_id"] < asked.fresh.num_scenes)
        & scenes["snr_db"].isin(wanted)
    ]
    for _, own in scenes.groupby(["snr_db", "num_sources"]):
        where = (float(own["snr_db"].iloc[0]), int(own["num_sources"].iloc[0]))
        means = own[list(MEANS)].mean().rename(MEANS).dropna()
        hinge = stood.get(where, {})
        yield {
            **identity(asked, name, arm, training, *where),
            "num_scenes": len(own),
            **{str(column): float(mean) for column, mean in means.items()},
            **{k: hinge[k] for k in ("hinge", "hinge_active") if k in hinge},
        }


def incomplete_rows(
    asked: RerunRequest, name: str, arm: str, training: Rerun
) -> Iterator[dict[str, Any]]:
    """Rows of `ablations` for a training that did not complete: no scenes are behind them."""
    for snr_db in asked.fresh.evaluation(training.config).report_snr_db:
        for count in range(1, training.config.scene.max_sources + 1):
            yield {**identity(asked, name, arm, training, snr_db, count), "num_scenes": 0}


def identity(
    asked: RerunRequest, name: str, arm: str, training: Rerun, snr_db: float, num_sources: int
) -> dict[str, Any]:
    """What a row of `ablations` is about."""
    return {
        "ablation": name,
        "arm": arm,
        "trial_id": training.trial_id,
        "seed": training.config.seed,
        "evaluation_seed": asked.fresh.seed,
        "changes": training.changes,
        "snr_db": snr_db,
        "num_sources": num_sources,
    }


def print_verdict(store: RunStore, name: str, notes: list[str]) -> int:
    """Prints the verdict and its table, and leaves them as JSON, Markdown and a figure."""
    from search.records import to_json
    from search.remote import push
    from search.report.analysis import ablation
    from search.report.data import runs
    from search.report.figures import ablation_plot
    from trainer.atomic import write_atomically

    run = runs.load(store.path)
    found = ablation.effects(run, name)
    said = "\n".join([ablation.text(run, name, found), *(["", *notes] if notes else [])])
    print(f"\n{said}\n")
    if not found:
        return 0 if ablation.incomplete(run, name).any else 1
    stem = store.path / "report" / f"ablation-{name}"
    stem.parent.mkdir(exist_ok=True)
    content = {
        "ablation": name,
        "verdict": ablation.verdict(found[0]),
        "sentence": ablation.sentence(run, name, found),
        "incomplete": asdict(ablation.incomplete(run, name)),
        "effects": [asdict(effect) for effect in found],
        "notes": notes,
    }
    write_atomically(stem.with_name(f"{stem.name}.json"), to_json(content))
    write_atomically(stem.with_name(f"{stem.name}.md"), f"{said}\n".encode())
    figure = ablation_plot.write(run, {name: found}, stem.with_name(f"{stem.name}.png"))
    push(stem.parent)
    print(f"figure:   {figure}\nsummary:  {stem}.json, {stem}.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
