"""Cost of the driver as trials at a time grow: the real driver, workers that only wait.

    python benchmarks/scale.py [--slots 8 32 128] [--epochs 9] [--seconds 5] [--rounds 4]

A cluster of pretended CPUs on this machine (Ray's `Cluster` utility, 32 slots to a node) runs
`rounds` trials for each slot through the search as it is: Optuna's TPE, ASHA's rungs, tables,
checkpoints. The trainer waits `seconds` an epoch and replays a learning curve whose level follows
from its parameters; it imports no torch, so that memory is Ray's and ours. Each size has a driver
process of its own. For each:

    driver CPU   of the driver's process per trial and per report, and its share of one core
    memory       the driver's at its peak, and what a worker shares with no other
    lag          how long a report waits for the driver: from the worker's clock to its row
    unheard      share of the slots' time that goes into epochs of which nobody hears
    lost         share of it in which no trial trained: starting, ending, waiting for the driver

The last two are of the time in which the search could keep all slots busy: from when as many
trials have started as there are slots until the last one starts. Every training notes when each of
its epochs began and ended.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np

from search.plan import set_ray_environment

set_ray_environment()

PER_NODE = 32


@dataclass(frozen=True)
class State:
    """A checkpoint of the form that the run expects, with nothing in it."""

    epoch: int

    def save(self, path: Path) -> None:
        """Write it as `torch.save` does, as a ZIP file."""
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("epoch", str(self.epoch))


@dataclass(frozen=True)
class Report:
    """The part of `EpochReport` that the search reads."""

    epoch: int
    error: float
    seconds: float
    evaluation: tuple[Any, ...] = ()
    state: State = field(default_factory=lambda: State(0))

    def row(self) -> dict[str, Any]:
        """Return the row of `epochs`, with the time and this process's memory [MiB] beside it."""
        return {
            "epoch": self.epoch,
            "step": self.epoch,
            "loss_total": self.error,
            "gradient_norm": 1.0,
            "min_eigengap": 0.1,
            "median_eigengap": 0.2,
            "loading": 1e-5,
            "objective": self.error,
            "validation_capped_error": self.error,
            "validation_success_rate": 1 - self.error,
            "skipped_samples": 0,
            "replaced_samples": 0,
            "learning_rate": 1e-3,
            "seconds": self.seconds,
            "sent": time.time(),  # this and the next are no columns: the driver looks at them
            "memory": own_memory(),
        }


def own_memory() -> float:
    """Return memory of this process that no other shares [MiB]."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 2**10


def cpu_seconds() -> float:
    """Return CPU time of this process."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def waiting(seconds: float, clocks: Path) -> Any:
    """Train by waiting; note the epochs in a file of its own."""

    def train(config: Any, *, resume: Any = None) -> Iterator[Report]:
        level = 0.2 + 0.1 * abs(np.log10(config.optimizer.learning_rate) + 2)
        with open(clocks / uuid.uuid4().hex, "w", buffering=1) as clock:
            for epoch in range(1, config.epochs + 1):
                began = time.time()
                time.sleep(seconds)
                print(began, time.time(), file=clock)
                yield Report(epoch, float(level + 0.5 * np.exp(-epoch / 3)), seconds)

    return train


def measure(slots: int, trials: int, epochs: int, seconds: float, out: Path) -> dict[str, float]:
    """Run one search with so many slots."""
    from ray.cluster_utils import Cluster

    import spaces
    from search.cluster import connect
    from search.driver import SearchCallback, search
    from search.plan import Resources, SearchConfig
    from search.records import RunStore, declared

    smoke = spaces.get("smoke")
    spaces.PRESETS["waiting"] = spaces.Space(
        "waiting", "For measuring.", smoke.suggest, smoke.anchors, smoke.fixed | {"epochs": epochs}
    )
    lags: list[float] = []
    sends: list[float] = []
    memory: list[float] = []
    heard = SearchCallback.on_trial_result

    def hear(self: Any, iteration: int, trials: Any, trial: Any, result: Any, **info: Any) -> None:
        heard(self, iteration, trials, trial, result, **info)
        if "sent" in result:
            sends.append(result["sent"])
            lags.append(time.time() - result["sent"])
            memory.append(result["memory"])

    SearchCallback.on_trial_result = hear  # measures, changes nothing
    # Ray would start a worker for each CPU that no trial can use, and which cost memory
    idle = {"prestart_worker_first_driver": False}
    head = {"num_cpus": 0, "include_dashboard": False, "_system_config": idle}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    for left in range(slots, 0, -PER_NODE):
        cluster.add_node(num_cpus=min(left, PER_NODE))
    plan = SearchConfig("waiting", trials, f"slots-{slots}", str(out), address=cluster.address)
    store = RunStore.create(
        out / plan.name,
        parameters=declared(plan),
        plan={"search": plan.as_dict(), **plan.space_json},
    )
    clocks = Path(tempfile.mkdtemp(prefix="clocks-", dir=out))
    try:
        with connect(plan):
            before, began = cpu_seconds(), time.monotonic()
            with open(os.devnull, "w") as nowhere:
                said, sys.stdout = sys.stdout, nowhere
                try:
                    search(plan, store, Resources(1, 0, slots), train=waiting(seconds, clocks))
                finally:
                    sys.stdout = said
            wall, cpu = time.monotonic() - began, cpu_seconds() - before
    finally:
        SearchCallback.on_trial_result = heard
        cluster.shutdown()
    rows = store.read("trials")
    starts = rows["started"].astype("datetime64[us, UTC]").astype("int64").to_numpy() / 1e6
    lines = [line for clock in clocks.iterdir() for line in clock.read_text().splitlines()]
    noted = np.array([line.split() for line in lines], dtype=float)
    heard_of = np.array([(sent - seconds, sent) for sent in sends])
    trained, busy = (share_of_time(epochs, starts, slots) for epochs in (heard_of, noted))
    return {
        "slots": slots,
        "trials": len(rows),
        "reports": len(lags),
        "wall [s]": wall,
        "driver CPU per trial [ms]": 1e3 * cpu / len(rows),
        "per report [ms]": 1e3 * cpu / len(lags),
        "driver CPU [% of a core]": 100 * cpu / wall,
        "driver memory [MiB]": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
        "worker memory [MiB]": float(np.median(memory)),
        "lag, median [ms]": 1e3 * float(np.median(lags)),
        "lag, 99 % [ms]": 1e3 * float(np.quantile(lags, 0.99)),
        "unheard [%]": 100 * (busy - trained),
        "lost [%]": 100 * (1 - busy),
    }


def share_of_time(epochs: np.ndarray, starts: np.ndarray, slots: int) -> float:
    """Return the share of the slots' time, while all could be busy, that lies in epochs.

    Args:
        epochs: [n, 2], when each began and ended.
        starts: of all trials.
    """
    begin, end = np.sort(starts)[slots - 1], starts.max()
    return float(np.diff(epochs.clip(begin, end)).sum() / (slots * (end - begin)))


def main() -> int:
    """Measure every number of slots and print the table."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--slots", type=int, nargs="+", default=[8, 32, 128])
    p.add_argument("--rounds", type=int, default=4, help="trials for each slot")
    p.add_argument("--epochs", type=int, default=9)
    p.add_argument("--seconds", type=float, default=5.0, help="of an epoch")
    p.add_argument("--out", type=Path)
    args = p.parse_args()
    out = args.out or Path(tempfile.mkdtemp(prefix="scale-"))
    if len(args.slots) == 1:
        (slots,) = args.slots
        row = measure(slots, slots * args.rounds, args.epochs, args.seconds, out)
        print(json.dumps(row), flush=True)
        return 0
    rows = []
    for slots in args.slots:
        command = [sys.executable, __file__, "--slots", str(slots), "--rounds", str(args.rounds)]
        command += ["--epochs", str(args.epochs), "--seconds", str(args.seconds)]
        done = subprocess.run([*command, "--out", str(out)], stdout=subprocess.PIPE, check=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        print(json.dumps(rows[-1]), flush=True)
    names = list(rows[0])
    print(f"\n| {' | '.join(names)} |\n|{'---|' * len(names)}")
    for row in rows:
        print(f"| {' | '.join(f'{row[name]:.4g}' for name in names)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
