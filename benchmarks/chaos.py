"""Searches whose driver is killed (SIGKILL) at random and resumed, against an undisturbed one.

    python benchmarks/chaos.py [--searches 20] [--seed 0] [--out DIR] [--node-loss]

The trainer is the real one, the command line too (`drill.py`). Under `--scheduler none --sampler
random` the tables must equal those of the undisturbed run up to timing; under ASHA + TPE each
trial's epoch rows must equal those of an undisturbed training of its recorded configuration.
With `--node-loss`, a node of a three-node cluster on this machine is removed too, while a trial
trains on it. Exit code 1 if a row is lost, doubled or different, or a finished trial ran again.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

sys.path.insert(0, str(Path(__file__).parents[1]))

import pandas as pd
import pyarrow.parquet as pq

from search.plan import set_ray_environment
from search.records import KEYS, RunStore, folders

TRIALS = 4
DRILL = Path(__file__).parent / "drill.py"
TIMING = [
    "seconds",
    "seconds_per_epoch",
    "gpu_seconds",
    "started",
    "ended",
    "checkpoint",
    "replay",
]
WRITTEN = ("trials", "epochs", "evaluations", "scenes", "failures")
FREE = ("--scheduler", "none", "--sampler", "random")
GUIDED = ("--scheduler", "asha", "--sampler", "tpe")
EXIT_OF_A_KILLED_PROCESS = -signal.SIGKILL


def drive(*flags: str, kill_after: float | None = None) -> int:
    """Run the search's command line; kill its driver after so many seconds."""
    command = [sys.executable, str(DRILL), *flags, "--no-preflight"]
    with tempfile.TemporaryFile() as said:
        driver = subprocess.Popen(command, stdout=said, stderr=subprocess.STDOUT)
        try:
            code = driver.wait(kill_after)
        except subprocess.TimeoutExpired:
            driver.kill()
            code = driver.wait()
        if code not in (0, EXIT_OF_A_KILLED_PROCESS):
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} ended with {code}:\n{said.read().decode()}")
        return code


def killed_search(
    name: str, out: Path, flags: tuple[str, ...], kills: list[float]
) -> tuple[list[float], list[str]]:
    """Run a search that is killed and resumed after each of `kills` seconds.

    Returns:
        The kills that met a driver still at work, and what was wrong with the search.
    """
    met: list[float] = []
    wrong: list[str] = []
    new = ("--preset", "drill", "--trials", str(TRIALS), "--name", name, "--out", str(out), *flags)
    again = ("--resume", name, "--out", str(out))
    kept: dict[str, tuple[dict[str, Any], set[str]]] = {}
    for kill_after in [*kills, None]:
        started = (out / name / "run.json").exists()
        code = drive(*(again if started else new), kill_after=kill_after)
        if kill_after is not None and code == EXIT_OF_A_KILLED_PROCESS:
            met.append(kill_after)
        for row in rows_of(out / name / "trials"):
            trial = str(row["trial_id"])
            # its row has the time it began; a worker that is given it makes a folder
            places = {folder.name for folder in folders(out / name, trial)}
            kept_row, before = kept.setdefault(trial, (row, places))
            if str(row) != str(kept_row) or places - before:
                wrong.append(f"{trial} had ended and was run again")
    return met, wrong


def rows_of(table: Path) -> list[dict[str, Any]]:
    """Rows of a table, none where a run was killed before it had one."""
    return pq.read_table(table).to_pylist() if table.exists() else []


def compare(
    store: RunStore,
    references: Mapping[str, pd.DataFrame],
    trials: int = TRIALS,
    only: Collection[str] | None = None,
) -> list[str]:
    """Return what is lost or doubled in a finished run, or differs from given tables, in the rows
    of `only` these trials if they are given."""
    wrong = []
    ended, epochs = store.read("trials"), store.read("epochs")
    for table in WRITTEN:
        if store.read(table).duplicated(list(KEYS[table])).any():
            wrong.append(f"a row of {table} is doubled")
    if sorted(ended["number"]) != list(range(trials)):
        wrong.append(f"trials are {sorted(ended['number'])}")
    for trial in ended.itertuples():
        own = list(epochs[epochs["trial_id"] == trial.trial_id]["epoch"])
        if own != list(range(1, trial.epochs + 1)):
            wrong.append(f"{trial.trial_id} trained {trial.epochs} epochs, but has rows {own}")
    for table, reference in references.items():
        found = store.read(table)
        if only is not None:
            found = found[found["trial_id"].isin(only)]
        rows, expected = plain(table, found), plain(table, reference.reindex(columns=list(found)))
        if len(rows) != len(expected):
            wrong.append(f"{len(rows)} rows of {table}, but {len(expected)} undisturbed")
        for name in [n for n in rows if len(rows) == len(expected)]:
            if not rows[name].equals(expected[name].astype(rows[name].dtype)):
                wrong.append(f"{table}.{name} differs from that of the undisturbed trainings")
    return wrong


def plain(table: str, rows: pd.DataFrame) -> pd.DataFrame:
    """Return a table without what depends on clock and place, in order of its keys."""
    named = rows.drop(columns=[name for name in TIMING if name in rows])
    if "objective_scenes" in named:  # arrays where they were read from Parquet
        by_scene = named["objective_scenes"]
        named["objective_scenes"] = [e if e is None else list(e) for e in by_scene]
    return named.sort_values(list(KEYS[table])).reset_index(drop=True)


def replayed(store: RunStore, only: Collection[str] | None = None) -> pd.DataFrame:
    """Train every recorded configuration, or those of `only` these trials, here, without Ray or
    interruption; return its epochs."""
    import torch

    from search.plan import judged_epochs, objective_window
    from search.records import mean_by_scene, mean_objective, pick
    from trainer.config import TrainConfig
    from trainer.training import train

    torch.set_num_threads(1)
    rows = []
    for trial in store.read("trials").itertuples():
        if only is not None and trial.trial_id not in only:
            continue
        config = TrainConfig.from_params(store.read_config(trial.trial_id)["params"])
        reports: list[dict[str, object]] = []
        for report in train(config):
            reports.append(report.row())
            last = reports[-objective_window(config.epochs) :]
            row = reports[-1] | mean_objective(last) | {"objective_scenes": None}
            if report.epoch in judged_epochs(config.epochs):
                row |= mean_by_scene(last)
            rows.append(pick("epochs", row, trial_id=trial.trial_id))
            if report.epoch == trial.epochs:
                break
    return pd.DataFrame(rows)


def lose_a_node(out: Path) -> list[str]:
    """Remove one of two working nodes once both train; return what went wrong."""
    from drill import disturbed, training, wait_for

    set_ray_environment()  # before Ray is imported
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    run = out / "node-loss"

    def remove() -> None:
        wait_for("two trials at a time", lambda: len(training(run)) == 2)
        cluster.remove_node(lost)

    try:
        _, lost = (cluster.add_node(num_cpus=1) for _ in range(2))
        flags = ("--name", run.name, "--out", str(out), "--address", cluster.address)
        code, said = disturbed(*FREE, *flags, "--trials", str(TRIALS), disturb=remove)
    finally:
        cluster.shutdown()
    if code:
        raise SystemExit(f"the search ended with {code}:\n{said}")
    store = RunStore.open(run)
    wrong = []
    again = [line for line in said.splitlines() if "again" in line]
    if not again:
        wrong.append("no trial was lost")
    if set(store.read("trials")["outcome"]) != {"completed"}:
        wrong.append(f"trials ended as {list(store.read('trials')['outcome'])}")
    print("\n".join(again))
    return wrong + compare(store, {"epochs": replayed(store)})


def main() -> int:
    """Run the searches, print what became of each, and exit with 1 if one was damaged."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--searches", type=int, default=20)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--out", type=Path)
    p.add_argument("--node-loss", action="store_true")
    args = p.parse_args()
    draw = random.Random(args.seed)
    out = args.out or Path(tempfile.mkdtemp(prefix="chaos-"))
    bad = 0
    if args.node_loss:
        wrong = lose_a_node(out)
        bad += bool(wrong)
        print(f"node removed: {'; '.join(wrong) or 'all trials completed, all rows equal'}")
    if not args.searches:
        return 1 if bad else 0
    began = time.monotonic()
    killed_search("undisturbed", out, FREE, [])
    seconds = time.monotonic() - began
    undisturbed = RunStore.open(out / "undisturbed")
    reference = {table: undisturbed.read(table) for table in WRITTEN}
    rows = ", ".join(f"{len(each)} {table}" for table, each in reference.items())
    print(f"undisturbed: {seconds:.0f} s, {rows}; runs are in {out}", flush=True)
    for search in range(args.searches):
        guided = search % 2 == 1
        kills = [draw.uniform(0, seconds) for _ in range(draw.choice((1, 1, 2)))]
        name = f"killed-{search:02d}"
        flags = GUIDED if guided else FREE
        met, wrong = killed_search(name, out, flags, kills)
        while not met:  # the driver was faster than the undisturbed one
            shutil.rmtree(out / name)
            kills = [kill / 2 for kill in kills]
            met, wrong = killed_search(name, out, flags, kills)
        store = RunStore.open(out / name)
        wrong += compare(store, {"epochs": replayed(store)} if guided else reference)
        bad += bool(wrong)
        how = "ASHA + TPE" if guided else "random"
        when = ", ".join(f"{k:.1f}" for k in met)
        found = "; ".join(wrong) or "0 lost, 0 doubled, 0 rerun, all rows equal"
        print(f"{name} ({how}), killed after {when} s: {found}", flush=True)
    print(f"{args.searches - bad} of {args.searches} searches came through")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
