"""What a search costs beside its trainings: Ray, the driver and our bookkeeping.

    python benchmarks/overhead.py [--trials 4] [--preset local] [--many 1000]

First the same configurations are trained twice in one run, through the search (one at a time,
`--scheduler none --sampler random`) and in a plain Python loop, on one thread each; Ray's start is
reported apart. Then a search of many trials with a trainer that does nothing shows what our own
bookkeeping costs per trial as the run grows, and what TPE itself costs beside it.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"

sys.path.insert(0, str(Path(__file__).parents[1]))

import optuna
import torch

import spaces
from search.config import SearchConfig
from search.connection import connect
from search.driver import search
from search.monitor import Monitor
from search.preflight import Resources
from search.schema import BASELINES
from search.searcher import OptunaSearcher
from search.store import RunStore
from trainer.checkpoint import TrainState
from trainer.config import TrainConfig
from trainer.loop import EpochReport, train

ONE = Resources(cpus=1, gpus=0, concurrent=1)
HOOKS = ("on_trial_start", "on_trial_result", "on_trial_complete", "on_step_begin")


def nothing(config: TrainConfig, *, resume: TrainState | None = None) -> Iterator[EpochReport]:
    """A training of one epoch that takes no time; worse with a higher learning rate."""
    del resume
    error = 0.2 + min(config.optimizer.learning_rate, 0.5)
    state = TrainState(config.to_params(), 1, 1, {}, {}, {}, torch.zeros(1))
    yield EpochReport(
        epoch=1, step=1, losses={"total": error, "covariance": error}, gradient_norm=1.0,
        min_eigengap=0.1, median_eigengap=0.2, loading=1e-5, skipped_samples=0,
        replaced_samples=0, learning_rate=1e-3, capped_error=error, success_rate=0.5,
        seconds=1e-3, evaluation=(), state=state,
    )  # fmt: skip


def new_run(plan: SearchConfig) -> RunStore:
    """A run without the classical baselines, which no trial pays for."""
    declared = {name: spaces.PARAMETERS[name] for name in plan.space.parameters()}
    store = RunStore.create(
        Path(plan.out) / plan.name,
        parameters={name: (p.kind, p.unit, p.about) for name, p in declared.items()},
        plan={"search": plan.as_dict(), **plan.searched},
    )
    store.write_part("evaluations", BASELINES, [])
    return store


class Stopwatch:
    """Keeps the seconds that every call of some methods takes."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def watch(self, owner: type, method: str, name: str) -> None:
        """Times every call of `owner.method` from now on."""
        setattr(owner, method, self.watched(getattr(owner, method), name))

    def watched(self, inner: Callable[..., Any], name: str) -> Callable[..., Any]:
        """`inner`, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = self.clock()
            try:
                return inner(*args, **kwargs)
            finally:
                self.seconds[name].append(self.clock() - began)

        return timed


def compare(preset: str, trials: int, out: str) -> None:
    """The same trainings through the search and in a plain loop."""
    plan = SearchConfig(
        preset, trials, "search", out=out, scheduler="none", sampler="random", max_concurrent=1
    )
    store = new_run(plan)
    began = time.perf_counter()
    with connect(plan):
        ray_start = time.perf_counter() - began
        began = time.perf_counter()
        driver_cpu = time.process_time()
        search(plan, store, ONE)
        driver_cpu = time.process_time() - driver_cpu
        searched = time.perf_counter() - began
    epochs = store.read("epochs")
    inside = float(epochs["seconds"].sum())
    torch.set_num_threads(1)
    began = time.perf_counter()
    for name in sorted(store.ended()):
        for _ in train(TrainConfig.from_params(store.read_config(name)["params"])):
            pass
    plain = time.perf_counter() - began
    reports = len(epochs)
    print(f"{preset}: {trials} trials, {reports} reports; Ray's start {ray_start:.1f} s, apart")
    print(f"  plain Python loop          {plain:8.1f} s")
    print(f"  search, wall               {searched:8.1f} s  ({searched / plain - 1:+.1%})")
    print(f"  of it in epochs            {inside:8.1f} s")
    print(
        f"  driver's own CPU           {driver_cpu:8.1f} s  ({driver_cpu / plain:.1%}; "
        f"{1e3 * driver_cpu / trials:.0f} ms a trial, {1e3 * driver_cpu / reports:.1f} a report)"
    )


def grow(trials: int, out: str, wall: bool) -> None:
    """Bookkeeping and TPE, per trial, as a run grows."""
    plan = SearchConfig("smoke", trials, "many", out=out, scheduler="none")
    watch = Stopwatch(time.perf_counter if wall else time.thread_time)
    watch.watch(OptunaSearcher, "suggest", "suggest")
    watch.watch(optuna.Study, "ask", "ask")
    smoke = spaces.get("smoke")
    spaces.PRESETS["smoke"] = replace(
        smoke, suggest=watch.watched(smoke.suggest, "draw"), fixed={**smoke.fixed, "epochs": 1}
    )
    for hook in HOOKS:
        watch.watch(Monitor, hook, hook)
    store = new_run(plan)
    with connect(plan):
        began = time.perf_counter()
        search(plan, store, ONE, train=nothing)
        total = time.perf_counter() - began
    print(f"{trials} trials that do nothing, one at a time: {1e3 * total / trials:.0f} ms each")
    clock = "wall-clock" if wall else "CPU"
    print(
        f"  trials       bookkeeping      TPE ({clock} ms a trial, means over a tenth of the run)"
    )
    draws = watch.seconds["draw"][-trials:]  # before them, the space was explored
    tenth = max(1, trials // 10)
    for start in range(0, trials, tenth):
        here = slice(start, start + tenth)
        tpe = 1e3 * (mean(watch.seconds["ask"][here]) + mean(draws[here]))
        ours = 1e3 * mean(watch.seconds["suggest"][here]) - tpe
        for hook in HOOKS:
            times = watch.seconds[hook]
            per = len(times) // trials or 1
            ours += 1e3 * sum(times[start * per : (start + tenth) * per]) / tenth
        print(f"  {start:5d}-{start + tenth:<8d}{ours:10.2f}{tpe:12.2f}")


def main() -> None:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--preset", default="local")
    p.add_argument("--trials", type=int, default=4)
    p.add_argument("--many", type=int, default=1000)
    p.add_argument("--wall", action="store_true", help="wall-clock, not the driver's CPU time")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="overhead-") as out:
        if args.trials:
            compare(args.preset, args.trials, out)
        if args.many:
            grow(args.many, out, args.wall)


if __name__ == "__main__":
    main()
