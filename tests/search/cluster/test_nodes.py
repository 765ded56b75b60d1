"""A search on a cluster of several nodes: its code arrives, versions agree, jobs are followed.

All on this machine with Ray's `Cluster` utility, in which every node has processes of its own.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from search.cluster import checks, trainable
from search.cluster.checks import check_nodes, wait_for_resources
from search.cluster.connection import connect
from search.cluster.search_abort import SearchAbort
from search.driver.driver import search
from search.plan.config import SearchConfig
from search.plan.errors import Refused, SearchFailed
from search.plan.requirements import version_mismatch
from search.plan.resources import Resources
from search.records.run_plan import declared
from search.records.store import RunStore
from search.run import main
from trainer.provenance import versions

ROOT = Path(__file__).parents[3]


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_spreads_onto_new_nodes_and_survives_lost_ones():
    script = str(ROOT / "benchmarks" / "spread.py")
    assert subprocess.run([sys.executable, script]).returncode == 0


OWN = {"python": "3.11.7", "ray": "2.60.0", "torch": "2.13.0+cpu", "numpy": "2.3.0"}


def test_equal_versions_pass_whatever_they_were_built_for():
    assert version_mismatch(OWN, {"a": OWN, "b": OWN | {"torch": "2.13.0+cu128"}}) == ""


@pytest.mark.parametrize("name", OWN)
def test_another_version_is_refused_with_both_named(name):
    theirs = {"good": OWN, "odd": OWN | {name: "1.2.3"}}
    said = version_mismatch(OWN, theirs)
    assert re.search(rf"{name} is .* here and 1\.2\.3 on odd\. Use one image", said)


def test_a_missing_package_is_a_difference():
    said = version_mismatch(OWN, {"odd": {k: v for k, v in OWN.items() if k != "torch"}})
    assert re.search(r"torch is .* here and None on odd", said)


def test_a_worker_with_another_version_trains_nothing_and_ends_the_search(monkeypatch):
    """Whenever its machine came."""
    reports: list[dict[str, object]] = []
    monkeypatch.setattr(trainable, "_report", reports.append)
    own = versions() | {"torch": "9.9.9"}

    def train(config: object, *, resume: object = None) -> Iterator[object]:
        pytest.fail("trained")

    trainer = trainable.trainer_of(None, Resources(cpus=1, gpus=0, concurrent=1), train)
    trainable.make_trainable(trainer, "x", own)({"trial_id": "t0000"})
    (last,) = reports
    ending = SearchAbort()
    assert ending("t0000", last)
    assert ending.stop_all()
    assert re.search(r"torch is 9\.9\.9 here and \d.* on ", ending.reason)
    assert not last.get("outcome")  # the trial did not do it, and goes on when resumed


@pytest.fixture
def cluster(ray_cluster: Cluster) -> tuple[Cluster, str]:
    """The shared head with two CPUs, and the URL of its dashboard."""
    return ray_cluster, f"http://{ray_cluster.webui_url}"


@pytest.fixture
def another_torch(cluster, tmp_path) -> Iterator[str]:
    """Return the report of a node that finds another torch first, as in another image; it has four
    CPUs."""
    odd = tmp_path / "site" / "torch-0.0.1.dist-info"
    odd.mkdir(parents=True)
    (odd / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 0.0.1\n")
    node = cluster[0].add_node(num_cpus=4, env_vars={"PYTHONPATH": str(odd.parent)})
    own = versions()["torch"].partition("+")[0]
    yield rf"torch is {own}.* here and 0\.0\.1 on"
    cluster[0].remove_node(node)


def on_cluster(cluster: Cluster, tmp_path: Path) -> tuple[SearchConfig, RunStore]:
    plan = SearchConfig("smoke", 1, "x", out=str(tmp_path), address=cluster.address)
    store = RunStore.create(
        tmp_path / "x",
        parameters=declared(plan),
        plan={"search": plan.as_dict(), **plan.space_json},
    )
    return plan, store


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_with_another_torch_is_refused_and_named(cluster, tmp_path, another_torch):
    plan, store = on_cluster(cluster[0], tmp_path)
    with connect(plan), pytest.raises(Refused, match=another_torch):
        check_nodes(store)


@pytest.mark.ray
@pytest.mark.slow
def test_a_node_that_came_after_the_checks_is_refused_too(cluster, tmp_path, another_torch):
    """On a cluster that grows there is no worker to ask before the first trial."""
    plan, store = on_cluster(cluster[0], tmp_path)
    only_there = Resources(cpus=4, gpus=0, concurrent=1)
    with connect(plan), pytest.raises(SearchFailed, match=another_torch):
        search(plan, store, only_there)
    assert store.ended() == set()  # the trial did not do it, and goes on elsewhere


@pytest.mark.ray
@pytest.mark.slow
def test_a_machine_that_never_comes_is_waited_for_as_long_as_was_said(cluster, tmp_path, capfd):
    """Ray does not tell whether a cluster grows; `--max-concurrent` is taken as the promise."""
    where = ("--address", cluster[0].address, "--out", str(tmp_path), "--name", "y")
    wide = ("--cpus-per-trial", "64", "--max-concurrent", "1", "--gpus-per-trial", "0")
    began = time.monotonic()
    assert main(["--preset", "smoke", *where, *wide, "--trial-timeout", "4"]) == 2
    assert 4 < time.monotonic() - began < 30
    assert (
        "64 CPUs and 0 GPUs, but none does and none has come within 4 s" in capfd.readouterr().err
    )
    assert not (tmp_path / "y").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_a_machine_that_comes_is_used(cluster, tmp_path, capfd, monkeypatch):
    monkeypatch.setattr(checks, "MESSAGE_SECONDS", 1.0)
    plan, _ = on_cluster(cluster[0], tmp_path)
    plan = replace(plan, cpus_per_trial=3, gpus_per_trial=0, max_concurrent=1)
    with connect(plan) as now, ThreadPoolExecutor() as beside:
        waiting = beside.submit(wait_for_resources, plan, now)
        while "no machine holds a trial of 3 CPUs" not in capfd.readouterr().out:
            assert not waiting.done()
            time.sleep(0.1)
        node = cluster[0].add_node(num_cpus=3)
        assert waiting.result(60) == Resources(cpus=3, gpus=0, concurrent=1)
    cluster[0].remove_node(node)


@pytest.mark.ray
def test_workers_run_the_drivers_code(cluster, tmp_path):
    plan, _ = on_cluster(cluster[0], tmp_path)

    @ray.remote(num_cpus=0)
    def sent() -> set[str]:
        """Packages that this worker finds among what came with the job."""
        import sys
        from pathlib import Path

        folders = [Path(place) for place in sys.path if "py_modules" in place]
        return {found.parent.name for folder in folders for found in folder.glob("*/__init__.py")}

    with connect(plan):
        here = ray.get_runtime_context().get_node_id()
        there = NodeAffinitySchedulingStrategy(here, soft=False)
        found = ray.get(sent.options(scheduling_strategy=there).remote())
    assert {"search", "spaces", "trainer"} <= found


@pytest.mark.ray
@pytest.mark.slow
def test_workers_run_a_users_modules_that_only_the_driver_can_import(
    cluster, tmp_path, monkeypatch
):
    """The worker finds a package, and what is imported beside a file, among what came with the
    job; what it lacks is named."""
    package, notes = tmp_path / "my_pkg", tmp_path / "notes"
    package.mkdir()
    example = ROOT.joinpath("examples", "free_gram.py").read_text()
    noting = f"\nwith open({str(notes)!r}, 'a') as file:\n    print(__file__, file=file)\n"
    sibling, file = tmp_path / "my_sibling.py", tmp_path / "my_nets.py"
    sibling.write_text(noting)
    file.write_text(f"import my_sibling\n{example}")
    files = {"__init__": "", "nets": example + noting, "alone": f"import my_sibling\n{example}"}
    for name, text in files.items():
        package.joinpath(f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    few = ("steps_per_epoch=1", "batch_size=8", "eigengap.term=off")

    def tried(*modules: str) -> list[str]:
        kinds = (f"network.kind={','.join(f'{module}:FreeGram' for module in modules)}",)
        address = cluster[0].address
        plan = SearchConfig("smoke", 1, "x", settings=few, choices=kinds, address=address)
        with connect(plan) as machines:
            return checks.try_networks(plan, Resources(cpus=1, gpus=0, concurrent=1), machines)[0]

    lines = tried("my_pkg.nets", str(file))
    for line, module in zip(lines, ("my_pkg.nets", file), strict=True):
        assert line.startswith(f"{module}:FreeGram network: one step")
    places = {Path(line) for line in notes.read_text().splitlines()}
    here = {package / "nets.py", sibling}
    assert here < places
    assert {place.name for place in places - here} == {"nets.py", "my_sibling.py"}
    assert all("py_modules" in str(place) for place in places - here)
    with pytest.raises(Refused, match="No module named 'my_sibling'"):
        tried("my_pkg.alone")


def submit(cluster: tuple[Cluster, str], out: Path, *flags: str) -> str:
    """Has the cluster run a search named `job`, as a user does; the submission's id.

    A user says `--address auto`; here that may be the Ray of a test that runs at the same time.
    """
    head, dashboard = cluster
    command = [sys.executable, "-m", "ray.scripts.scripts", "job", "submit", "--no-wait"]
    wait = json.dumps({"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "60"}})
    command += ["--address", dashboard, "--working-dir", str(ROOT), "--runtime-env-json", wait]
    search = ["python", "-m", "search.run", "--preset", "smoke", "--scheduler", "none", *flags]
    search += ["--name", "job", "--out", str(out), "--address", head.address]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path}
    latest = time.monotonic() + 120
    while True:  # a head that has just started has no agent for jobs yet
        done = subprocess.run(
            [*command, "--", *search], capture_output=True, text=True, env=environment
        )
        if "No available agent" not in done.stderr or time.monotonic() > latest:
            break
        time.sleep(1)
    assert done.returncode == 0, done.stdout + done.stderr
    while not (out / "job" / ".driver").exists() and time.monotonic() < latest:
        time.sleep(0.2)
    return re.search(r"raysubmit_\w+", done.stdout)[0]


@pytest.mark.ray
@pytest.mark.slow
def test_a_job_that_is_stopped_ends_as_if_interrupted(cluster, tmp_path, capfd):
    """`ray job stop`: the search has the time that it was promised, and says how it ended."""
    job = submit(cluster, tmp_path, "--trials", "40")
    latest = time.monotonic() + 120
    parts = (tmp_path / "job" / "trials").glob
    ray_job = [sys.executable, "-m", "ray.scripts.scripts", "job"]
    of_it = [job, "--address", cluster[1]]
    while not any(pq.read_metadata(part).num_rows for part in parts("session-*.parquet")):
        if time.monotonic() > latest:
            subprocess.run([*ray_job, "logs", *of_it])
            pytest.fail("no trial has ended within 120 s; what the job printed is above")
        time.sleep(0.2)
    subprocess.run([*ray_job, "stop", *of_it], check=True, capture_output=True)
    assert main(["--attach", "job", "--out", str(tmp_path)]) == 130
    assert "ended with exit code 130" in capfd.readouterr().out
