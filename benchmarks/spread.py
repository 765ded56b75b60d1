"""A search on a cluster that changes: nodes are added, one is killed, one is drained.

    python benchmarks/spread.py [--trials 6] [--out DIR]

Three nodes with one CPU each, on this machine, and a head that takes no trials. The
search begins with one node; two more are added while it runs, and it spreads onto them (a trial
takes a CPU, so three at a time are on three nodes). Then one node is killed, and one is
drained as a cloud does with a spot machine that it wants back. Exit code 1 unless every trial has
completed, no row is lost or doubled, and the epochs of trials that lost their node are those of
the same training, undisturbed, up to timing.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import chaos
from drill import disturbed, training, wait_for

from search.plan import set_ray_environment
from search.records import RunStore

NOTICE_S = 3
"""Warning that the drained node gets, as a spot machine does."""
EPOCHS = 40
"""Of a trial, which is to outlast the loss of both nodes: some ten seconds on a core."""


def drain(address: str, node_id: str) -> None:
    """Tell Ray that a node goes soon, as an autoscaler does, and remove it."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", address]
    command += ["--node-id", node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", "wanted back", "--deadline-remaining-seconds", str(NOTICE_S)]
    subprocess.run(command, check=True, capture_output=True)


def disturb(cluster, first, run: Path, notes: list[str]) -> None:
    """Add, kill and drain nodes while the search runs."""
    wait_for("a first checkpoint", lambda: len(training(run)) == 1)
    others = [cluster.add_node(num_cpus=1) for _ in range(2)]
    took = wait_for("spreading", lambda: len(training(run)) == 3)
    notes.append(f"two nodes added; three trials train {took:.0f} s later")
    cluster.remove_node(first)
    notes.append("one node killed")
    wait_for("going on", lambda: len(training(run)) >= 2)
    drain(cluster.address, others[0].node_id)
    time.sleep(NOTICE_S)
    cluster.remove_node(others[0])
    notes.append(f"one node drained with {NOTICE_S} s notice, then gone")


def main() -> int:
    """Run the search and compare its rows with those of undisturbed trainings."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--trials", type=int, default=6)
    p.add_argument("--out", type=Path)
    args = p.parse_args()
    out = args.out or Path(tempfile.mkdtemp(prefix="spread-"))
    set_ray_environment()  # before Ray is imported
    from ray.cluster_utils import Cluster

    began, notes = time.monotonic(), []
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    try:
        first = cluster.add_node(num_cpus=1)
        code, said = disturbed(
            *chaos.FREE,
            *("--name", "spread", "--out", str(out), "--trials", str(args.trials)),
            *("--epochs", str(EPOCHS)),
            *("--address", cluster.address, "--max-concurrent", "3", "--gpus-per-trial", "0"),
            disturb=lambda: disturb(cluster, first, out / "spread", notes),
        )
    finally:
        cluster.shutdown()
    took = time.monotonic() - began
    if code:
        raise SystemExit(f"the search ended with {code}:\n{said}")
    store = RunStore.open(out / "spread")
    again = [line for line in said.splitlines() if "again" in line]
    if len(again) < 2:
        raise SystemExit(f"a killed and a drained node cost {len(again)} trials their worker")
    moved = {name for line in again for name in re.findall(r"\bt\d{4}\b", line)}
    reference = {"epochs": chaos.replayed(store, moved)}
    wrong = chaos.compare(store, reference, trials=args.trials, only=moved)
    outcomes = list(store.read("trials")["outcome"])
    if set(outcomes) != {"completed"}:
        wrong.append(f"trials ended as {outcomes}")
    print("\n".join([*notes, *again]))
    rows = f"{len(reference['epochs'])} epochs of {', '.join(sorted(moved))}"
    print(f"{took:.0f} s, {rows}: {'; '.join(wrong) or 'all trials completed, all rows equal'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
