"""Other libraries' searches over the recorded table, beside ours: training until one of the best.

    python benchmarks/search_anchors.py [--seeds 20] [--workers 1 2 8 32] [--only NAME ...]
        [--library syne-tune=ENV/bin/python dehb=ENV/bin/python ...]
        [--kept runs/search_anchors.jsonl] [--write]

Every search meets the table of `search_quality.py` on the same event clock, by the same rule: what
is suggested becomes the nearest recorded configuration that was not asked to train so far before,
the searcher is told of that one, and an epoch costs what it cost. An objective is the mean of the
last two epochs, as ours. Who pauses a trial, or asks for a configuration with a larger budget than
before, goes on from where it was, for nothing. Libraries other than Optuna run in environments of
their own, through `other_searchers.py`; who has none is left out. A replay that is in `--kept` is
not run again; `data/search_anchors.jsonl` has those of docs/search.md, and some more.
"""

import argparse
import heapq
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).parents[1]))

import local_table
import numpy as np
import optuna
from documents import write_tables
from replayed_search import Contender, Table
from replayed_search import endings as ours_end
from search_quality import OURS, REFERENCE, medians, shipped

from search.plan import Outcome, SearchConfig, objective_window
from search.suggest import trial_seed
from spaces import range_to_json
from spaces.space import AnsweringTrial

SHARES = (0.025, 0.0125)
"""Of the table that is good enough; replays go on to the last."""
SEEDS = 20
FEWEST = 6
"""Seeds that a median needs: the least and the largest of fewer hold it in less than 95 %."""
PAIRED = "**the default**: anchors, TPE + ASHA"
"""The search that others are paired with, seed by seed."""
DOCUMENT = Path("docs/search.md")
OTHERS = Path(__file__).with_name("other_searchers.py")


class Searcher(Protocol):
    """A search as `other_searchers.py` describes it."""

    def ask(self) -> tuple[str, dict[str, Any], int] | None: ...
    def runs(self, trial: str, values: Mapping[str, Any]) -> None: ...
    def report(self, trial: str, epoch: int, value: float) -> str: ...
    def failed(self, trial: str) -> None: ...


def endings(
    searcher: Searcher, table: Table, plan: SearchConfig, workers: int
) -> Iterator[tuple[float, int, Outcome]]:
    """Yield the time, the index in the table and the outcome of each trial that ends, until the
    table is used up or nothing is asked for any more."""
    judged = objective_window(table.epochs)
    places: dict[str, int] = {}
    asked, trained = [0] * len(table.trainings), [0] * len(table.trainings)
    busy: set[int] = set()
    idle = list(range(workers))
    events: list[tuple[float, int, str, int]] = []

    def start(clock: float) -> bool:
        """Give the first idle worker a trial; return False if there is none."""
        suggestion = searcher.ask()
        if suggestion is None:
            return False
        trial, values, until = suggestion
        if trial not in places:
            free = [i for i, most in enumerate(asked) if most < until and i not in busy]
            if not free:
                return False
            index = places[trial] = table.nearest(active(plan, values), free)
            searcher.runs(trial, table.trainings[index].sampler)
        index = places[trial]
        asked[index] = max(asked[index], until)
        busy.add(index)
        push(clock, idle.pop(0), trial, until)
        return True

    def push(clock: float, worker: int, trial: str, until: int) -> None:
        own = table.trainings[places[trial]]
        cost = own.seconds[0] if trained[places[trial]] < until else 0.0
        heapq.heappush(events, (clock + cost, worker, trial, until))

    while True:
        clock = events[0][0] if events else 0.0
        if events:
            clock, worker, trial, until = heapq.heappop(events)
            index = places[trial]
            own = table.trainings[index]
            epoch = min(trained[index] + 1, until)
            if epoch > len(own.errors):
                searcher.failed(trial)
                outcome, verdict = Outcome.DIVERGED, "stop"
            else:
                trained[index] = max(trained[index], epoch)
                value = fmean(own.errors[max(0, epoch - judged) : epoch])
                verdict = searcher.report(trial, epoch, value)
                outcome = Outcome.COMPLETED if epoch == table.epochs else Outcome.STOPPED
            if epoch < until and verdict == "continue":
                push(clock, worker, trial, until)
                continue
            busy.discard(index)
            idle.append(worker)
            if verdict != "pause" or outcome is Outcome.COMPLETED:
                yield clock, index, outcome
        while idle and start(clock):
            pass
        if not events:
            return


def active(plan: SearchConfig, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the values that the space asks for, given the others."""
    trial = AnsweringTrial(lambda name, _: values[name])
    plan.space.suggest(trial)
    return {name: values[name] for name in trial.asked}


class Remote:
    """A searcher in another environment."""

    def __init__(self, name: str, python: str) -> None:
        self._name = name
        command = [python, str(OTHERS)]
        same = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | same,
        )

    def open(self, plan: SearchConfig) -> None:
        """Begin a new search."""
        ranges = {name: range_to_json(each) for name, each in plan.space.ranges().items()}
        self._call("open", self._name, ranges, plan.template.epochs, plan.seed)

    def ask(self) -> tuple[str, dict[str, Any], int] | None:
        """Return the next trial."""
        return self._call("ask")  # type: ignore[no-any-return]

    def runs(self, trial: str, values: Mapping[str, Any]) -> None:
        """Tell what is trained."""
        self._call("runs", trial, dict(values))

    def report(self, trial: str, epoch: int, value: float) -> str:
        """Return what it decides after an epoch."""
        return str(self._call("report", trial, epoch, value))

    def failed(self, trial: str) -> None:
        """Tell of a divergence."""
        self._call("failed", trial)

    def close(self) -> None:
        """End the process."""
        self._process.communicate()

    def _call(self, method: str, *args: Any) -> Any:
        into, out = self._process.stdin, self._process.stdout
        assert into is not None
        assert out is not None
        into.write(json.dumps([method, args]) + "\n")
        into.flush()
        if not (line := out.readline()):
            raise RuntimeError(f"{self._name} ended in `{method}`; its error is above.")
        return json.loads(line)


class Pruner:
    """A pruner of Optuna as the judge of a replay, with the trials that it needs to know."""

    def __init__(self, pruner: type[optuna.pruners.BasePruner], epochs: int) -> None:
        self._study = optuna.create_study(pruner=pruner())
        self._epochs = epochs
        self._trials: dict[int, optuna.Trial] = {}

    def should_stop(
        self, trial: str, number: int, epoch: int, value: float, *, spared: bool = False
    ) -> bool:
        """Return whether the pruner ends the trial after this epoch."""
        del trial, spared
        while number >= len(self._trials):
            self._trials[len(self._trials)] = self._study.ask()
        own = self._trials[number]
        own.report(value, epoch)
        stops = own.should_prune()
        if epoch == self._epochs:
            self._study.tell(own, value)
        elif stops:
            self._study.tell(own, state=optuna.trial.TrialState.PRUNED)
        return stops

    def restore(self, *args: object, **kwargs: object) -> None:
        """Do nothing: a replay is not resumed."""


def optuna_tpe(plan: SearchConfig, number: int) -> optuna.samplers.BaseSampler:
    """Return Optuna's TPE as it comes."""
    return optuna.samplers.TPESampler(seed=trial_seed(plan.seed, number))


def optunas(pruner: type[optuna.pruners.BasePruner]) -> Contender:
    """Return a search by Optuna alone, with one of its pruners as it comes."""
    name = f"Optuna: TPE, {pruner.__name__}"
    return Contender(name, optuna_tpe, partial(Pruner, pruner), spares=False)


IN_PROCESS = (
    shipped("random", "none", name=REFERENCE),
    replace(OURS, name=PAIRED, anchors=True),
    shipped("random", name="anchors, random + ASHA", anchors=True),
    replace(OURS, name="TPE + ASHA"),
    shipped("random", name="random + ASHA"),
    optunas(optuna.pruners.SuccessiveHalvingPruner),
    optunas(optuna.pruners.WilcoxonPruner),
)
REMOTE = {
    "Syne Tune: ASHA-CQR": "syne-tune",
    "Syne Tune: PASHA": "syne-tune-0.13",
    "Syne Tune: ASHA, promotion": "syne-tune-0.13",
    "DEHB": "dehb",
    "SMAC: Hyperband facade": "smac",
    "SMAC: multi-fidelity facade": "smac",
}
"""Name of a contender -> the library whose environment it needs."""


def seconds_to(
    found: Iterable[tuple[float, int, Outcome]], goals: Sequence[set[int]], workers: int
) -> list[float]:
    """Return seconds of training, of all workers, until one of each goal is trained to its end;
    infinite for those of which all are stopped."""
    needed = [float("inf")] * len(goals)
    left = [set(goal) for goal in goals]  # of each that is not reached: what still can end
    for clock, index, outcome in found:
        for place, goal in enumerate(left):
            if index in goal and outcome is Outcome.COMPLETED:
                needed[place] = clock * workers
                goal.clear()
            goal.discard(index)
        if not any(left):
            break
    return needed


class Kept:
    """Replays that have been made, in a file of one line of JSON each."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = path.read_text().splitlines() if path.exists() else []
        rows = [json.loads(line) for line in lines]
        self._path = path
        self.needed: dict[tuple[str, int, int], list[float]] = {
            (name, workers, seed): [float(each) for each in needed]
            for name, workers, seed, needed in rows
        }

    def add(self, name: str, workers: int, seed: int, needed: list[float]) -> None:
        """Add what a replay needed; infinities are text, which JSON knows."""
        self.needed[name, workers, seed] = needed
        with self._path.open("a") as file:
            file.write(json.dumps([name, workers, seed, [str(each) for each in needed]]) + "\n")


def replay(args: argparse.Namespace, kept: Kept) -> None:
    """Make the replays that are missing, seed by seed."""
    plan = SearchConfig(local_table.PRESET, 1, "replay")
    table = Table(plan, local_table.load())
    goals = [table.best(share, objective_window(table.epochs)) for share in SHARES]
    pythons = dict(each.split("=", 1) for each in args.library)
    remotes = {name: Remote(name, pythons[lib]) for name, lib in REMOTE.items() if lib in pythons}
    local = {each.name: each for each in IN_PROCESS}
    wanted = [
        (seed, workers, name)
        for seed in range(args.seeds)
        for workers in args.workers
        for name in [*local, *remotes]
        if not args.only or name in args.only
    ]
    for seed, workers, name in wanted:
        if (name, workers, seed) in kept.needed:
            continue
        own = replace(plan, seed=seed)
        if name in remotes:
            remotes[name].open(own)
            found = endings(remotes[name], table, own, workers)
        else:
            found = ours_end(replace(local[name], workers=workers), table, own)
        kept.add(name, workers, seed, seconds_to(found, goals, workers))
    for each in remotes.values():
        each.close()


def table_of(kept: Kept, place: int, workers: Sequence[int]) -> str:
    """Return what each search needs for one of `SHARES`, by the number of workers, as Markdown."""
    lines = [
        f"| best {SHARES[place]:.2%} | " + " | ".join(f"{n} at a time" for n in workers) + " |",
        "|---" * (1 + len(workers)) + "|",
    ]
    for name in [*(each.name for each in IN_PROCESS), *REMOTE]:
        cells = [cell(kept, name, number, place) for number in workers]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(kept: Kept, name: str, workers: int, place: int) -> str:
    """Return the median of what a search needs, and of its ratio to `PAIRED` seed by seed."""
    own = {
        seed: n[place] for (who, w, seed), n in kept.needed.items() if (who, w) == (name, workers)
    }
    other = {
        s: n[place] for (who, w, s), n in kept.needed.items() if (who, w) == (PAIRED, workers)
    }
    both = sorted(own.keys() & other.keys())
    if len(both) < FEWEST:
        return "-"
    needed, beside = np.array([own[s] for s in both]), np.array([other[s] for s in both])
    with np.errstate(invalid="ignore"):
        ratio = needed / beside
    ratio[np.isinf(needed) & np.isinf(beside)] = 1.0
    text = middle(needed, 0)
    if name != PAIRED:
        text += f"; {middle(ratio, 2)}"
    if never := np.isinf(needed).sum():
        text += f"; {never} never"
    return text + f"; n = {len(both)}" * (len(both) != SEEDS)


def middle(sample: np.ndarray, digits: int) -> str:
    """Return the median with its 95 % bootstrap interval."""
    with np.errstate(invalid="ignore"):
        ends = np.quantile(medians(sample, 1), [0.025, 0.975], method="nearest")
    low, high = (f"{end:.{digits}f}".replace("inf", "∞") for end in ends)
    return f"{np.median(sample):.{digits}f} [{low}, {high}]".replace("inf", "∞")


def main() -> None:
    """Make the missing replays, print the tables, and write them with `--write`."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--seeds", type=int, default=SEEDS, help="0: only print what is kept")
    p.add_argument("--workers", nargs="+", type=int, default=[1, 2, 8, 32])
    p.add_argument("--only", nargs="+", default=[], help="names of searches")
    p.add_argument("--library", nargs="+", default=[], metavar="NAME=PYTHON")
    p.add_argument("--kept", type=Path, default=Path("runs/search_anchors.jsonl"))
    p.add_argument("--write", action="store_true", help=f"the tables into {DOCUMENT}")
    args = p.parse_args()
    kept = Kept(args.kept)
    replay(args, kept)
    tables = {
        f"search anchors {share:.2%}": table_of(kept, place, args.workers)
        for place, share in enumerate(SHARES)
    }
    print("\n\n".join(tables.values()))
    if args.write:
        write_tables(DOCUMENT, tables)


if __name__ == "__main__":
    main()
