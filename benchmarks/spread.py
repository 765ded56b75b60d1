"""A search on a cluster that changes under it: nodes come, one is killed, one is drained.

    python benchmarks/spread.py [--trials 6] [--out DIR]

Three nodes with one pretended GPU each, on this machine, and a head that takes no trials. The
search begins with one node; two more are added while it runs, and it spreads onto them (a trial
takes a whole GPU, so three at a time are on three nodes). Then one node is killed, and one is
drained as a cloud does with a spot machine that it wants back. Exit code 1 unless every trial has
completed with the rows of an undisturbed training of its configuration.
"""

import argparse
import contextlib
import io
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import chaos
import drill

from search.environment import prepare
from search.preflight import Resources
from search.recall import checkpoints
from search.store import RunStore

PATIENCE_S = 120.0
NOTICE_S = 5
"""Warning that the drained node gets, as a spot machine does."""


def begun(store: RunStore) -> set[str]:
    """Trials that have kept a checkpoint and have not ended."""
    ended = store.ended()
    return {t for t in store.started() if t not in ended and checkpoints(store.path, t)}


def wait_for(what: str, happened) -> float:
    """Waits until it has; after how many seconds."""
    start = time.monotonic()
    while not happened():
        if time.monotonic() - start > PATIENCE_S:
            raise TimeoutError(f"{what} did not happen in {PATIENCE_S:g} s")
        time.sleep(0.1)
    return time.monotonic() - start


def drain(address: str, node_id: str) -> None:
    """Tells Ray that the node goes soon, as an autoscaler does; then it must go."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--address", address]
    command += ["--node-id", node_id, "--reason", "DRAIN_NODE_REASON_PREEMPTION"]
    command += ["--reason-message", "wanted back", "--deadline-remaining-seconds", str(NOTICE_S)]
    subprocess.run(command, check=True, capture_output=True)


def disturb(cluster, first, store: RunStore, notes: list[str]) -> None:
    """What happens to the cluster while the search runs."""
    wait_for("a first checkpoint", lambda: len(begun(store)) == 1)
    others = [cluster.add_node(num_cpus=1, num_gpus=1) for _ in range(2)]
    took = wait_for("spreading", lambda: len(begun(store)) == 3)
    notes.append(f"two nodes added; three trials train {took:.0f} s later")
    cluster.remove_node(first)
    notes.append("one node killed")
    took = wait_for("going on", lambda: len(begun(store)) >= 2)
    drain(cluster.address, others[0].node_id)
    time.sleep(NOTICE_S)
    cluster.remove_node(others[0])
    notes.append(f"one node drained with {NOTICE_S} s notice, then gone")


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--trials", type=int, default=6)
    p.add_argument("--out", type=Path)
    args = p.parse_args()
    out = args.out or Path(tempfile.mkdtemp(prefix="spread-"))
    prepare()  # before Ray is imported
    from ray.cluster_utils import Cluster

    from search.connection import connect
    from search.driver import search

    began = time.monotonic()
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False}
    )
    first = cluster.add_node(num_cpus=1, num_gpus=1)
    plan, store = drill.new_run(out, "spread", args.trials, cluster.address)
    said, notes = io.StringIO(), []
    try:
        with connect(plan), contextlib.redirect_stdout(said):
            change = threading.Thread(target=disturb, args=(cluster, first, store, notes))
            change.start()
            search(plan, store, Resources(cpus=1, gpus=1, concurrent=3))
            change.join()
    finally:
        cluster.shutdown()
    took = time.monotonic() - began
    wrong = chaos.compare(store, chaos.replayed(store), trials=args.trials)
    again = [line for line in said.getvalue().splitlines() if "again" in line]
    if len(notes) < 3:
        wrong.append(f"only this happened: {notes}")
    if len(again) < 2:
        wrong.append(f"a killed and a drained node cost {len(again)} trials their worker")
    outcomes = list(store.read("trials")["outcome"])
    if set(outcomes) != {"completed"}:
        wrong.append(f"trials ended as {outcomes}")
    print("\n".join([*notes, *again]))
    print(f"{took:.0f} s: {'; '.join(wrong) or 'all trials completed, all rows equal'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
