"""Cost of a search beside its trainings: Ray, the driver and its bookkeeping.

    python benchmarks/overhead.py [--trials 4] [--preset local] [--many 1000]
    python benchmarks/overhead.py --plugin 60

First the same configurations are trained twice in one run, through the search (one at a time,
`--scheduler none --sampler random`) and in a plain Python loop, in a process of its own with the
workers' environment and on one thread. All that passes outside epochs is split in three: what
passes before the first trial begins (Ray, its worker, torch) is reported apart; the rest is the
cost per trial and, within trials, per report. Then a search of many trials with a trainer that
does nothing shows what our own bookkeeping costs per trial as the run grows, what TPE costs in it,
what TPE costs in an ordinary Optuna study of the same space, and how the driver's memory grows.

`--plugin N` measures a user's own trainer instead: one that works a second per epoch and has a
state of a megabyte. It notes itself how long it stands still between a report and the request for
the next one, and what its work took; the same generator in a plain loop, in a process of its own
before the search and another after it, is the comparison.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
os.environ["RAY_AIR_NEW_OUTPUT"] = "0"

sys.path.insert(0, str(Path(__file__).parents[1]))

import optuna
import torch

import spaces
from search.cluster import SearchAbort, connect
from search.driver import Scheduler, SearchCallback, TrialSearcher, search
from search.plan import Resources, SearchConfig
from search.records import RunStore, declared
from search.report import mean_interval
from search.suggest import SAMPLERS
from trainer.config import TrainConfig
from trainer.evaluation import EvaluationRow
from trainer.training import EpochReport, TrainState, train
from trainer.user_code import load

ONE = Resources(cpus=1, gpus=0, concurrent=1)
WORKER_NICENESS = 15
"""Ray's own for its workers; counts on a machine that others keep busy."""

HOOKS: tuple[tuple[type, str], ...] = (
    (TrialSearcher, "suggest"),
    (Scheduler, "on_trial_result"),
    (SearchAbort, "__call__"),
    (SearchAbort, "stop_all"),
    (SearchCallback, "on_trial_start"),
    (SearchCallback, "on_trial_result"),
    (SearchCallback, "on_trial_complete"),
    (SearchCallback, "on_trial_error"),
    (SearchCallback, "on_step_begin"),
)
"""All that Ray calls of ours while trials run; what ends a trial is told from within."""


SCORES = tuple(
    EvaluationRow(
        estimator="network", snr_db=snr_db, num_sources=num_sources, num_scenes=32,
        capped_error=0.5, capped_error_low=0.4, capped_error_high=0.6, rmspe_deg=20.0,
        median_error_deg=10.0, success_rate=0.5, success_rate_low=0.4, success_rate_high=0.6,
        success_rate_3d=0.3, source_number_accuracy=0.5, source_number_accuracy_gap=0.5,
        source_number_accuracy_mdl=0.5, source_number_accuracy_aic=0.5, crb_db=10.0,
    )
    for snr_db in (-10.0, -5.0, 0.0, 10.0) for num_sources in (1, 2)
)  # fmt: skip
"""As many rows as a trial of `smoke` has in `evaluations`."""


def error_of(learning_rate: float) -> float:
    """Return a made-up error, worse with a higher learning rate."""
    return 0.2 + min(learning_rate, 0.5)


def nothing(config: TrainConfig, *, resume: TrainState | None = None) -> Iterator[EpochReport]:
    """Train one epoch that takes no time."""
    del resume
    error = error_of(config.optimizer.learning_rate)
    state = TrainState(config.to_params(), 1, 1, {}, {}, {}, torch.zeros(1))
    yield EpochReport(
        epoch=1, step=1, losses={"total": error, "covariance": error}, gradient_norm=1.0,
        min_eigengap=0.1, median_eigengap=0.2, loading=1e-5, skipped_samples=0,
        replaced_samples=0, learning_rate=1e-3, capped_error=error,
        capped_error_low=error, capped_error_high=error, success_rate=0.5,
        seconds=1e-3, evaluation=SCORES, state=state, scene_errors=(error,) * 128,
    )  # fmt: skip


def new_run(plan: SearchConfig) -> RunStore:
    """Create a run without trials."""
    return RunStore.create(
        Path(plan.out) / plan.name,
        parameters=declared(plan),
        plan={"search": plan.as_dict(), **plan.space_json},
    )


class Stopwatch:
    """Seconds that each call of some methods took."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def watch(self, owner: type, method: str, name: str) -> None:
        """Time every call of `owner.method` from now on."""
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
    """Run the same trainings through the search and in a plain loop; print both."""
    plan = SearchConfig(
        preset, trials, "search", out=out, scheduler="none", sampler="random", max_concurrent=1
    )
    store = new_run(plan)
    began = time.perf_counter()
    with connect(plan):  # also gives what is started from here on the workers' environment
        ray_start = time.perf_counter() - began
        began, began_at = time.perf_counter(), time.time()
        driver_cpu = time.process_time()
        search(plan, store, ONE)
        driver_cpu = time.process_time() - driver_cpu
        searched = time.perf_counter() - began
    epochs, rows = store.read("epochs"), store.read("trials")
    inside, within = float(epochs["seconds"].sum()), float(rows["seconds"].sum())
    first = rows["started"].min().timestamp() - began_at
    params = [store.read_config(name)["params"] for name in sorted(store.ended())]
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        plain, plain_inside = alone.submit(plain_loop, params).result()
    reports = len(epochs)
    per_trial = (searched - first - within) / trials
    per_report = (within - inside - (plain - plain_inside)) / reports
    ours = trials * per_trial + reports * per_report
    print(f"{preset}: {trials} trials, {reports} reports, {plain / trials:.1f} s of training each")
    print(f"  apart: Ray's start {ray_start:.1f} s, then {first:.1f} s until a worker trains")
    print(f"  plain Python loop          {plain:8.2f} s, of it in epochs {plain_inside:.2f} s")
    print(
        f"  search                     {searched - first:8.2f} s, of it in epochs {inside:.2f} s"
    )
    print(f"  outside of trainings       {ours:8.2f} s, {ours / plain:.2%} of the plain loop")
    print(f"    a trial                  {1e3 * per_trial:8.1f} ms")
    print(f"    a report                 {1e3 * per_report:8.1f} ms, its checkpoint included")
    print(f"  driver's own CPU           {driver_cpu:8.2f} s, {driver_cpu / plain:.2%}")


def plain_loop(params: list[dict[str, Any]]) -> tuple[float, float]:
    """Return the seconds of these trainings one after another, and those spent in epochs."""
    os.nice(WORKER_NICENESS)
    torch.set_num_threads(1)
    inside, began = 0.0, time.perf_counter()
    for each in params:
        inside += sum(report.seconds for report in train(TrainConfig.from_params(each)))
    return time.perf_counter() - began, inside


def grow(trials: int, out: str, wall: bool) -> None:
    """Print bookkeeping and TPE, per trial, as a run grows."""
    plan = SearchConfig("smoke", trials, "many", out=out)
    watch = Stopwatch(time.perf_counter if wall else time.thread_time)
    smoke = spaces.get("smoke")
    timed = watch.watched(smoke.suggest, "TPE")

    def suggest(trial: spaces.Trial) -> dict[str, Any]:
        """The space's; timed where a sampler answers, and not where a space is explored."""
        return timed(trial) if isinstance(trial, optuna.Trial) else smoke.suggest(trial)

    fixed = {**smoke.fixed, "epochs": 1}
    spaces.PRESETS["smoke"] = replace(smoke, suggest=suggest, fixed=fixed)
    watch.watch(optuna.Study, "ask", "ask")
    for owner, method in HOOKS:
        watch.watch(owner, method, f"{owner.__name__}.{method}")
    resident: list[float] = []
    complete = SearchCallback.on_trial_complete

    def measured(*args: Any, **kwargs: Any) -> None:
        """End a trial, and note the memory that the driver then has [MiB]."""
        complete(*args, **kwargs)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        resident.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)

    SearchCallback.on_trial_complete = measured
    with connect(plan):
        began = time.perf_counter()
        search(plan, new_run(plan), ONE, train=nothing)
        total = time.perf_counter() - began
    searched, watch.seconds = watch.seconds, defaultdict(list)
    study = optuna.create_study(sampler=SAMPLERS["tpe"](plan, 0))
    for _ in range(trials):
        asked = study.ask()
        study.tell(asked, error_of(suggest(asked)["optimizer.learning_rate"]))
    print(f"{trials} trials that do nothing, one at a time: {1e3 * total / trials:.0f} ms each")
    clock = "wall-clock" if wall else "CPU"
    print(f"  {clock} ms a trial, means over a tenth of the run; TPE alone: in a study of its own")
    print("  trials       bookkeeping       TPE  TPE alone  driver MiB")
    for tenth in range(10):
        part = (tenth / 10, (tenth + 1) / 10, trials)
        tpe = sum(share(searched[name], *part) for name in ("ask", "TPE"))
        alone = sum(share(watch.seconds[name], *part) for name in ("ask", "TPE"))
        ours = sum(share(searched[f"{o.__name__}.{m}"], *part) for o, m in HOOKS) - tpe
        rows = f"{int(part[0] * trials)}-{int(part[1] * trials)}"
        held = resident[int(part[1] * len(resident)) - 1]
        print(f"  {rows:<12s}{ours:12.2f}{tpe:10.2f}{alone:11.2f}{held:12.0f}")
    half = len(resident) // 2  # what libraries load with the first trials is no trial's
    grown = 1024 * (resident[-1] - resident[half]) / (len(resident) - 1 - half)
    print(f"  the driver's memory grows by {grown:.0f} KiB a trial, over the second half")


def share(times: list[float], start: float, end: float, trials: int) -> float:
    """Return milliseconds a trial that the calls between two fractions of a run took."""
    here = times[round(start * len(times)) : round(end * len(times))]
    return 1e3 * sum(here) / ((end - start) * trials)


PLUGIN = """
import time
from spaces import Space

def train(params, *, resume=None):
    gap = 0.0
    for epoch in range(1, params["epochs"] + 1):
        began, number = time.perf_counter(), 0
        while time.perf_counter() < began + params["work"]:
            number += 1
        yielded = time.perf_counter()
        state = bytes(2**20)
        yield {"epoch": epoch, "error": 1 / epoch, "gap": gap, "number": number, "state": state}
        gap = time.perf_counter() - yielded

def suggest(trial):
    return {"x": trial.suggest_float("x", 0.0, 1.0)}

space = Space("plugin", "For a benchmark.", suggest, fixed={"epochs": 61, "work": 1.0}, trials=1)
"""
"""A user's trainer whose epochs take a second; `number` is what it gets done in it."""


def plugin(epochs: int, out: str) -> None:
    """Print what a report of a user's trainer costs, through the search and in a plain loop."""
    file = Path(out) / "plugin.py"
    file.write_text(PLUGIN)
    plan = SearchConfig(
        "plugin", 1, "search", out=out, space_from=f"{file}:space", epochs=epochs + 1,
        trainable=f"{file}:train", objective="error", scheduler="none",
    )  # fmt: skip
    params = plan.config({"x": 0.5}).to_params()
    store = new_run(plan)
    rows: dict[str, list[dict[str, float]]] = {"plain loop": [], "search": []}
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as alone:
        half = {**params, "epochs": epochs // 2 + 1}
        rows["plain loop"] += alone.submit(plain_plugin, str(file), half).result()
        with connect(plan):
            search(plan, store, replace(ONE, code_texts=plan.code_texts))
        rows["plain loop"] += alone.submit(plain_plugin, str(file), half).result()
    for row in store.read("epochs").sort_values("epoch").to_dict("records")[1:]:
        rows["search"].append({name: row[f"metrics.{name}"] for name in ("gap", "number")})
    print(f"a trainer of a user's own, epochs of {params['work']:g} s, a state of 1 MiB")
    for name, own in rows.items():
        gaps, numbers = ([1e3 * one["gap"] for one in own], [one["number"] for one in own])
        print(
            f"  {name:<11s}{spread(gaps)} ms from a report to the next epoch; in an epoch "
            f"{spread(numbers)} counts; n = {len(own)}"
        )
    ours, plain = (
        sum(1 + one["gap"] for one in rows[name]) / len(rows[name])
        for name in ("search", "plain loop")
    )
    print(f"  the search takes {ours / plain - 1:.2%} longer than the plain loop")


def spread(values: list[float]) -> str:
    """Return mean and 95 % interval, over epochs."""
    found = mean_interval(values)
    return f"{found.mean:.4g} [{found.low:.4g}, {found.high:.4g}]"


def plain_plugin(file: str, params: dict[str, Any]) -> list[dict[str, float]]:
    """Return the reports, from the second on, of the generator in a plain loop."""
    os.nice(WORKER_NICENESS)
    train = load(f"{file}:train")
    reports = [{n: one[n] for n in ("gap", "number")} for one in train(params)]
    return reports[1:]


def main() -> None:
    """Measure what the flags ask for."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--preset", default="local")
    p.add_argument("--trials", type=int, default=4)
    p.add_argument("--many", type=int, default=1000)
    p.add_argument("--wall", action="store_true", help="wall-clock, not the driver's CPU time")
    p.add_argument("--plugin", type=int, default=0, help="epochs of a user's own trainer")
    args = p.parse_args()
    with tempfile.TemporaryDirectory(prefix="overhead-") as out:
        if args.plugin:
            plugin(args.plugin, out)
            return
        if args.trials:
            compare(args.preset, args.trials, out)
        if args.many:
            grow(args.many, out, args.wall)


if __name__ == "__main__":
    main()
