"""Training that a search needs until it has one of the best 5 % of a recorded table.

    python benchmarks/search_quality.py [--seeds 50] [--share 0.05]
                                        [--group main tpe samplers rungs spared judged]
    python benchmarks/search_quality.py --record 192 --parts FOLDER

Nothing is trained: `data/local.parquet` holds real trainings of the `local` preset, and searches
are replayed over it on simulated workers (`replayed_search.py`). What is counted is training time
on all workers up to the end of the first trial that is trained to its last epoch and among the
best 5 % (`--share`) of the table. Medians over seeds with 95 % bootstrap intervals, and ratios to
random search without early stopping.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import local_table
import numpy as np
import optuna
from replayed_search import Contender, Table, compute_to_reach, endings

import spaces
from search.plan import (
    EarlyStopper,
    Outcome,
    SearchConfig,
    asha,
    early_stopper,
    hyperband,
    objective_window,
)
from search.suggest import SAMPLERS, EndedTrial, state_and_values, trial_seed
from trainer.intervals import wilson_share

REFERENCE = "random"
RESAMPLES = 10_000


def tpe(plan: SearchConfig, number: int, **settings: Any) -> optuna.samplers.BaseSampler:
    """Return Optuna's TPE with other settings than the shipped ones, made anew for every trial as
    those are."""
    ours = {"multivariate": True, "constant_liar": True, "n_startup_trials": 8}
    seed = trial_seed(plan.seed, number)
    return optuna.samplers.TPESampler(seed=seed, **{**ours, **settings})


def only_completed(past: EndedTrial, plan: SearchConfig, *, to_sampler: bool) -> tuple[Any, Any]:
    """Tell a value if the training ended and a failure otherwise, as published searches do."""
    state, values = state_and_values(past, plan, to_sampler=to_sampler)
    complete = state is optuna.trial.TrialState.COMPLETE
    return (state, values) if complete else (optuna.trial.TrialState.FAIL, None)


def shipped(sampler: str = "tpe", scheduler: str = "asha", **more: Any) -> Contender:
    """Return the contender that `python -m search.run --sampler ... --scheduler ...` is."""
    name = more.pop("name", f"{sampler} + {scheduler}")
    judge = partial(early_stopper, scheduler)
    return Contender(name, SAMPLERS[sampler], judge, reads=sampler, **more)


OURS = shipped(name="ours: tpe + asha")
PUBLIC = Contender(
    "public design: tpe in sequence, never pruned",
    partial(tpe, multivariate=False, constant_liar=False, n_startup_trials=10),
    partial(early_stopper, "none"),
    workers=1,
    tell=only_completed,
)


def with_tpe(name: str, **settings: Any) -> Contender:
    """Return our search with other settings of TPE."""
    return replace(OURS, name=name, sampler=partial(tpe, **settings))


def with_rungs(name: str, judge: Callable[[int], EarlyStopper]) -> Contender:
    """Return our search with another early stopper."""
    return replace(OURS, name=name, judge=judge)


GROUPS: dict[str, list[Contender]] = {
    "main": [
        shipped("random", "none", name=REFERENCE),
        OURS,
        replace(OURS, name="ours, the preset's anchors first", anchors=True),
        shipped("random", "asha", name="random + asha, anchors first", anchors=True),
        shipped("random", "asha"),
        shipped("tpe", "none", name="tpe alone"),
        PUBLIC,
        shipped("random", "none", name="random, one at a time", workers=1),
        replace(OURS, name="ours, anchors, one at a time", anchors=True, workers=1),
        replace(OURS, name="ours without anchors, one at a time", workers=1),
        shipped("random", "asha", name="random + asha, one at a time", workers=1),
    ],
    "tpe": [
        with_tpe("group", group=True),
        with_tpe("not multivariate", multivariate=False),
        with_tpe("no constant liar", constant_liar=False),
        *(with_tpe(f"{n} at random first", n_startup_trials=n) for n in (4, 16, 24)),
    ],
    "samplers": [shipped("qmc"), shipped("cmaes"), shipped("gp")],
    "rungs": [
        with_rungs("rungs 1 2 4 8, best half", partial(asha, first=1, reduction=2)),
        with_rungs("rungs 2 4 8, best half", partial(asha, first=2, reduction=2)),
        with_rungs("rungs 2 6, best third", partial(asha, first=2)),
        with_rungs("rungs 3 9, best third", partial(asha, first=3)),
        with_rungs("rungs 1 4, best quarter", partial(asha, first=1, reduction=4)),
        with_rungs("rungs 2 8, best quarter", partial(asha, first=2, reduction=4)),
        with_rungs("hyperband", hyperband),
        with_rungs("median", partial(early_stopper, "median")),
    ],
    "spared": [
        replace(each, name=f"{each.name}{', none spared' * (not spares)}", spares=spares)
        for each in (
            shipped(name="tpe, anchors first", anchors=True),
            shipped("random", name="random, anchors first", anchors=True),
            shipped("random", name="random without anchors"),
        )
        for spares in (True, False)
    ],
    "judged": [replace(OURS, name=f"mean of {n} epochs", judged=n) for n in (1, 3, 4)],
}


def main() -> None:
    """Record the table with `--record`, else replay the contenders."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seeds", type=int, default=50)
    p.add_argument("--group", nargs="+", choices=GROUPS, default=list(GROUPS))
    p.add_argument("--share", type=float, default=0.05, help="of the table that is good enough")
    p.add_argument("--record", type=int, metavar="N", help="make the table: N trainings, hours")
    p.add_argument("--parts", type=Path, default=Path("runs/local-table"), help="of a recording")
    args = p.parse_args()
    if args.record:
        local_table.record(args.record, args.parts)
    else:
        contenders = [GROUPS["main"][0], *(c for g in args.group for c in GROUPS[g])]
        replay(args.seeds, contenders, args.share)
        if "spared" in args.group:
            default_searches(args.seeds, GROUPS["spared"])


def replay(seeds: int, contenders: list[Contender], share: float) -> None:
    """Print what each contender needs, the reference first."""
    plan = SearchConfig(local_table.PRESET, 1, "replay")
    table = Table(plan, local_table.load())
    goal = table.best(share, objective_window(table.epochs))
    describe(table, goal, share)
    reference: np.ndarray | None = None
    print(f"{'':45}  training until then [s]   times less than {REFERENCE}, {seeds} seeds")
    for contender in dict.fromkeys(contenders):
        began = time.perf_counter()
        needed = np.array(
            [compute_to_reach(contender, table, replace(plan, seed=s), goal) for s in range(seeds)]
        )
        reference = needed if reference is None else reference
        low, high = np.quantile(medians(needed, 1), [0.025, 0.975])
        ratios = medians(reference, 2) / medians(needed, 3)
        less = f"{np.median(reference) / np.median(needed):.2f}"
        less += " [{:.2f}, {:.2f}]".format(*np.quantile(ratios, [0.025, 0.975]))
        never = f"  {np.isinf(needed).mean():.0%} never" if np.isinf(needed).any() else ""
        took = (time.perf_counter() - began) / seeds
        spent = f"{np.median(needed):6.0f} [{low:.0f}, {high:.0f}]"
        print(
            f"{contender.name:45}  {spent:24}  {less:20}{never}  ({took:.1f} s each)",
            flush=True,
        )


def default_searches(seeds: int, contenders: list[Contender]) -> None:
    """Print how long default searches train, and how often two with an eigengap term complete."""
    plan = SearchConfig(local_table.PRESET, 1, "replay")
    table = Table(plan, local_table.load())
    trials = spaces.get(local_table.PRESET).trials
    for each in contenders:
        clocks, completed = [], []
        for seed in range(seeds):
            ended = list(endings(each, table, replace(plan, seed=seed), trials))
            clocks.append(ended[-1][0])
            completed.append(
                sum(table.with_term[i] for _, i, end in ended if end is Outcome.COMPLETED)
            )
        share = wilson_share(fmean(count >= 2 for count in completed), seeds)
        print(
            f"{each.name:45}  {trials} trials take {np.median(clocks):.0f} s; two with a term "
            f"complete in {share.mean:.2f} [{share.low:.2f}, {share.high:.2f}], {seeds} seeds"
        )


def medians(sample: np.ndarray, seed: int) -> np.ndarray:
    """Return medians of bootstrap resamples."""
    draw = np.random.default_rng(seed).choice(sample, (RESAMPLES, len(sample)))
    return np.median(draw, axis=1)


def describe(table: Table, goal: set[int], share: float) -> None:
    """Print how many configurations the table has, what they cost, and how they ended."""
    trainings = table.trainings
    final = [each.errors[-1] for each in trainings if not each.diverged]
    quantiles = np.quantile(final, [0, share, 0.5, 1])
    seconds = [sum(each.seconds) for each in trainings]
    print(
        f"{len(trainings)} configurations, {sum(e.diverged for e in trainings)} diverged; "
        f"{np.mean(seconds):.1f} s each; final error: best {quantiles[0]:.3f}, best {share:.2%} "
        f"below {quantiles[1]:.3f}, median {quantiles[2]:.3f}, worst {quantiles[3]:.3f}"
    )
    for epoch in (1, 2, 3, 5):
        there = [e for e in trainings if not e.diverged]
        rank = _rank_correlation([e.errors[epoch - 1] for e in there], final)
        print(f"  rank correlation of epoch {epoch} with the last: {rank:.2f}")
    there = [each for each in trainings if each.held_out is not None]
    for judged in (1, 2, 3, 4):
        means = [fmean(each.errors[-judged:]) for each in there]
        rank = _rank_correlation(means, [each.held_out for each in there])
        print(f"  of the mean of the last {judged} with held-out scenes: {rank:.2f}")
    kinds = [trainings[index].sampler["network.kind"] for index in goal]
    least = min(sum(trainings[index].seconds) for index in goal)
    named = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
    print(f"  the best {share:.2%}: {named}; the shortest of them takes {least:.1f} s\n")


def _rank_correlation(one: list[float], other: list[float]) -> float:
    ranks = [np.argsort(np.argsort(values)) for values in (one, other)]
    return float(np.corrcoef(*ranks)[0, 1])


if __name__ == "__main__":
    main()
