"""`python -m search.ablate`: train with and without a loss term, or a setting, and compare.

Both arms have the same configurations, training seeds and scenes, so that common effects cancel in
the paired difference. The answer is one sentence with its interval, whatever it is.

    python -m search.ablate RUN --term eigengap                    the term as the trials have it
    python -m search.ablate RUN --term eigengap --definition leak  with this definition's defaults
    python -m search.ablate RUN --set spectral.backend=svd         any other setting
    python -m search.ablate --design eigengap.toml                 networks x regimes x terms

Exit codes: 0 compared, or not because trainings did not complete, which is an answer too; 1 it
failed, or there are too few configurations; 2 the request is impossible,
and nothing was touched; 130 it was interrupted.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from search.plan import Rerun, run_command
from search.records import RunStore, checked_name, to_json
from search.remote import push
from search.reruns import (
    DEFAULTS,
    TERMS,
    Design,
    RerunRequest,
    carry_out,
    create_run,
    describe_design,
    design_request,
    open_session,
    paired,
    parser,
)
from spaces.blocks import ACTING
from trainer.atomic import write_atomically
from trainer.cli import UsageError

MEANS = {
    "capped_error": "capped_error",
    "success": "success_rate",
    "source_number_found": "source_number_accuracy",
}
"""Columns of `scenes`, and of `ablations` for their means."""


OF_RUNS = ("run", "definition", "top", "trials", "seeds", "scenes", "snr", "scene_seed")
"""Flags that a design does not take."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    p = parser(
        "search.ablate",
        "Train a run's best trials with and without a loss term (or a setting), on the same "
        "fresh seeds and scenes, and say whether it helps. Writes RUN/ablations, RUN/scenes, "
        "RUN/reruns and RUN/report; a command that was killed goes on when it is given again.",
        runs="?",
    )
    what = p.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--term", metavar="TERM", help=f"a loss term with a weight of its own: {', '.join(TERMS)}"
    )
    what.add_argument(
        "--design",
        metavar="FILE",
        help="TOML file of networks, regimes and terms, without RUN: each term gets an equal "
        "small search and is compared with none, on common seeds and scenes, in a run of its own, "
        "OUT/NAME; docs/search.md",
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
    p.set_defaults(design=None)
    return run_command(p, ablate, argv)


def ablate(args: argparse.Namespace) -> int:
    """Rerun both arms and print the difference."""
    if args.design is not None:
        return ablate_design(args)
    if args.run is None:
        raise UsageError("--term and --set are of the trials of a run, but no RUN was given.")
    request = RerunRequest.from_flags(args)
    name = ablation_name(args)
    pairs, notes = paired(request, args)
    reruns = [one for pair in pairs for one in pair.values()]
    print(request.describe(reruns))
    print(f"{'ablation':<10} {name}")
    changes = {
        f"{arm:<10} {one.changes or 'as found'}" for pair in pairs for arm, one in pair.items()
    }
    print(*sorted(changes, reverse=True), sep="\n")
    print(*notes, sep="\n", end="\n" * bool(notes), flush=True)
    if args.dry_run:
        return 0
    with open_session(request) as work:
        failed = work.train(reruns)
        whole = [pair for pair in pairs if not {one.name for one in pair.values()} & {*failed}]
        work.score([one for pair in whole for one in pair.values()])
        weighed = [pair for pair in whole if pair["with"].config.eigengap.weight > 0]
        hinges = work.hinges(
            {one.name: pair["with"].config for pair in weighed for one in pair.values()}
        )
    rows: list[dict[str, Any]] = []
    for pair in pairs:
        for arm, one in pair.items():
            if pair in whole:
                rows += ablation_rows(request, name, arm, one, hinges.get(one.name, []))
            elif one.name in failed:
                rows += incomplete_rows(request, name, arm, one)
    request.store.write_part("ablations", name, rows)
    notes += [f"{outcome}: {rerun}, its pair left out" for rerun, outcome in failed.items()]
    return print_verdict(request.store, name, notes)


def ablate_design(args: argparse.Namespace) -> int:
    """Carry out a design."""
    for name in OF_RUNS:
        if getattr(args, name) != DEFAULTS.get(name):
            flag = "RUN" if name == "run" else f"--{name.replace('_', '-')}"
            raise UsageError(f"--design says all that is trained, but got {flag} too. Drop it.")
    design = Design.read(args.design)
    request = design_request(args, design)
    print(describe_design(request, design), flush=True)
    if args.dry_run:
        return 0
    notes = carry_out(create_run(request, design), design)
    return print_map(request.store, notes)


def print_map(store: RunStore, notes: list[str]) -> int:
    """Print what each term does, and write it as Markdown and a figure."""
    from search.report.data import load
    from search.report.factorial import map_text
    from search.report.figures import write_map

    run = load(store.path)
    text = "\n".join([map_text(run), *(["", *notes] if notes else [])])
    print(f"\n{text}\n")
    stem = store.path / "report" / "map"
    stem.parent.mkdir(exist_ok=True)
    write_atomically(stem.with_suffix(".md"), f"{text}\n".encode())
    figure = write_map(run, stem.with_suffix(".png"))
    push(stem.parent)
    print(
        f"figure:   {figure}\nsummary:  {stem}.md\nreport:   python -m search.report {store.path}"
    )
    return 0


def ablation_name(args: argparse.Namespace) -> str:
    """Return the ablation's name; it names files."""
    if args.name is not None:
        try:
            return checked_name(args.name)
        except ValueError as error:
            raise UsageError(f"--name: {error}") from None
    about = args.term or "-".join(args.set)
    text = f"{about}-{args.definition}" if args.definition else about
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in text)


def ablation_rows(
    request: RerunRequest, name: str, arm: str, one: Rerun, hinges: list[dict[str, float]]
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `ablations` for one rerun: its scores, and its eigengap term there.

    Only the requested scenes count: a rerun that is confirmed too has more, and its mean over
    those would not pair with the other arm's.
    """
    terms = {(row["snr_db"], row["num_sources"]): row for row in hinges}
    scenes = request.store.read("scenes", one.name)
    scenes = scenes[
        (scenes["evaluation_seed"] == request.fresh.seed)
        & (scenes["scene_id"] < request.fresh.num_scenes)
        & scenes["snr_db"].isin(request.fresh.evaluation(one.config).report_snr_db)
    ]
    for _, own in scenes.groupby(["snr_db", "num_sources"]):
        condition = (float(own["snr_db"].iloc[0]), int(own["num_sources"].iloc[0]))
        means = own[list(MEANS)].mean().rename(MEANS).dropna()
        term = terms.get(condition, {})
        yield {
            **_key(request, name, arm, one, *condition),
            "num_scenes": len(own),
            **{str(column): float(mean) for column, mean in means.items()},
            **{k: term[k] for k in ("hinge", "hinge_active") if k in term},
        }


def incomplete_rows(
    request: RerunRequest, name: str, arm: str, one: Rerun
) -> Iterator[dict[str, Any]]:
    """Yield the rows of `ablations` for a rerun that did not complete: without scenes."""
    for snr_db in request.fresh.evaluation(one.config).report_snr_db:
        for count in range(1, one.config.scene.max_sources + 1):
            yield {**_key(request, name, arm, one, snr_db, count), "num_scenes": 0}


def _key(
    request: RerunRequest, name: str, arm: str, one: Rerun, snr_db: float, num_sources: int
) -> dict[str, Any]:
    return {
        "ablation": name,
        "arm": arm,
        "trial_id": one.trial_id,
        "seed": one.config.seed,
        "evaluation_seed": request.fresh.seed,
        "changes": one.changes,
        "snr_db": snr_db,
        "num_sources": num_sources,
    }


def print_verdict(store: RunStore, name: str, notes: list[str]) -> int:
    """Print the verdict and its table, and write them as JSON, Markdown and a figure."""
    from search.report.analysis import ablation
    from search.report.data import load
    from search.report.figures import ablation_plot

    run = load(store.path)
    effects = ablation.effects(run, name)
    text = "\n".join([ablation.text(run, name), *(["", *notes] if notes else [])])
    print(f"\n{text}\n")
    if not effects:
        return 0 if ablation.incomplete(run, name).any else 1
    stem = store.path / "report" / f"ablation-{name}"
    stem.parent.mkdir(exist_ok=True)
    content = {
        "ablation": name,
        "verdict": ablation.verdict(effects[0]),
        "sentence": ablation.sentence(run, name),
        "incomplete": asdict(ablation.incomplete(run, name)),
        "effects": [asdict(effect) for effect in effects],
        "notes": notes,
    }
    write_atomically(stem.with_name(f"{stem.name}.json"), to_json(content))
    write_atomically(stem.with_name(f"{stem.name}.md"), f"{text}\n".encode())
    figure = ablation_plot.write(run, [name], stem.with_name(f"{stem.name}.png"))
    push(stem.parent)
    print(f"figure:   {figure}\nsummary:  {stem}.json, {stem}.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
