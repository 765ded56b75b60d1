"""Paired racing at rungs: how often it stops the best trial, and whether a search gains by it.

    python benchmarks/racing.py [--searches 2000] [--seeds 30] [--share 0.0125]

At a rung, a trial is stopped if its errors by scene are shown to be larger than those of a trial
that was there before: successive elimination [Even-Dar et al. 2006], by one-sided paired t tests.
The test against the k-th trial has the level `RATE` / (rungs k (k + 1)), so that the best trial of
a rung is stopped with a probability of at most `RATE` in a whole search, however long it is.

First, searches of trials that are all equally good, where the best is most easily lost, by the law
of their errors. Then replays over the recorded table, which has means over scenes only: errors by
scene are drawn around them, with the standard deviation of a paired difference that a row says.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import local_table
import numpy as np
from numpy.typing import NDArray
from replayed_search import Table, compute_to_reach
from scipy import stats
from search_quality import medians, shipped

from search.plan import SearchConfig, asha, objective_window
from trainer.intervals import wilson_share

RATE = 0.05
SCENES = 128
"""Validation scenes of the preset `local`."""
RUNGS = asha(10).brackets[0]
SPREADS = (0.05, 0.1, 0.2)
"""Standard deviations of the difference of two trials' errors in a scene."""

Array = NDArray[np.float64]
LAWS: dict[str, Callable[[np.random.Generator, tuple[int, int]], Array]] = {
    "normal": lambda random, shape: random.normal(0, 0.1, shape),
    "all lose .8 in a scene of 20": lambda random, shape: 0.8 * (random.random(shape) < 0.05),
    "the last gains .8 in a scene of 20": lambda random, shape: rare_gains(random, shape),
}
"""What is added to a scene's difficulty, by trial and scene [trials, scenes]; equal means."""


def rare_gains(random: np.random.Generator, shape: tuple[int, int]) -> Array:
    """Return errors of which the last trial's are a little larger but for one scene in 20."""
    errors = random.normal(0, 0.05, shape)
    errors[-1] += 0.04 - 0.8 * (random.random(shape[1]) < 0.05)
    return errors


def shown_worse(own: Array, before: Array, rate: float = RATE, rungs: int = len(RUNGS)) -> bool:
    """Return whether errors [scenes] are shown to be larger than those of one of the trials that
    were there `before`, [trials, scenes], in their order."""
    if not len(before):
        return False
    difference = own - before
    place = np.arange(1, len(before) + 1)
    levels = rate / (rungs * place * (place + 1))
    reach = stats.t.isf(levels, len(own) - 1) * stats.sem(difference, axis=1)
    return bool((difference.mean(axis=1) > reach).any())


def stopped_best(law: str, trials: int, searches: int) -> float:
    """Return the share of searches that stop one trial, equal to all others, at some rung."""
    stopped = 0
    for seed in range(searches):
        random = np.random.default_rng(seed)
        place = random.integers(trials)  # of the trial in question
        rungs = (LAWS[law](random, (place + 1, SCENES)) for _ in RUNGS)
        stopped += any(shown_worse(errors[-1], errors[:-1]) for errors in rungs)
    return stopped / searches


class Racing:
    """A judge for replays, on errors by scene drawn around the recorded means."""

    def __init__(self, spread: float) -> None:
        self._spread = spread
        self._reached: dict[int, list[Array]] = {epoch: [] for epoch in RUNGS}

    def should_stop(
        self, trial: str, number: int, epoch: int, value: float, *, spared: bool = False
    ) -> bool:
        """Return whether a trial at a rung is shown to be worse than an earlier one."""
        del trial, spared
        if epoch not in self._reached:
            return False
        scatter = np.random.default_rng(number).normal(0, self._spread / 2**0.5, SCENES)
        errors = value + scatter - scatter.mean()  # of one trial alike at every rung
        before = np.array(self._reached[epoch])
        self._reached[epoch].append(errors)
        return shown_worse(errors, before)

    def restore(self, *args: object, **kwargs: object) -> None:
        """Do nothing: a replay is not resumed."""


def replay(seeds: int, share: float) -> None:
    """Print the training until one of the best is found, by ASHA and by racing."""
    plan = SearchConfig(local_table.PRESET, 1, "replay")
    table = Table(plan, local_table.load())
    goal = table.best(share, objective_window(table.epochs))
    rungs = shipped("random", "asha", name="asha", spares=False)
    racing = [
        replace(rungs, name=f"racing, spread {spread:g}", judge=lambda _, s=spread: Racing(s))
        for spread in SPREADS
    ]
    for each in (rungs, *racing):
        needed = np.array(
            [compute_to_reach(each, table, replace(plan, seed=s), goal) for s in range(seeds)]
        )
        low, high = np.quantile(medians(needed, 1), [0.025, 0.975])
        print(
            f"{each.name:32} {np.median(needed):5.0f} [{low:.0f}, {high:.0f}] s, "
            f"{np.isinf(needed).mean():.0%} never, {seeds} seeds",
            flush=True,
        )


def main() -> None:
    """Print both."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--searches", type=int, default=2000)
    p.add_argument("--seeds", type=int, default=30)
    p.add_argument("--share", type=float, default=0.0125, help="of the table that is good enough")
    args = p.parse_args()
    for law in LAWS:
        for trials in (12, 50):
            share = wilson_share(stopped_best(law, trials, args.searches), args.searches)
            print(
                f"{law:35} {trials:3d} trials: the best is stopped in {share.mean:.3f} "
                f"[{share.low:.3f}, {share.high:.3f}], stated {RATE:g}",
                flush=True,
            )
    if args.seeds:
        replay(args.seeds, args.share)


if __name__ == "__main__":
    main()
