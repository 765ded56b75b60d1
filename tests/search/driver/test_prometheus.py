"""Metrics of a search on Ray's port, and the job in the dashboard's list."""

import json
import multiprocessing
import platform
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray

import spaces
from search.cluster.connection import connect
from search.driver.driver import search
from search.driver.prometheus import NAMES, errors_by_snr
from search.plan.config import SearchConfig
from search.plan.outcome import Outcome
from search.plan.resources import Resources
from search.records.best import best_trial
from search.records.run_plan import declared
from search.records.store import RunStore
from tests import poisoned
from tests.commands import free_port

BOARD = Path(__file__).parents[3] / "deploy" / "grafana" / "search.json"


def queries() -> list[str]:
    board = json.loads(BOARD.read_text())
    variables = [v["query"] for v in board["templating"]["list"] if v["type"] == "query"]
    return variables + [t["expr"] for panel in board["panels"] for t in panel["targets"]]


def test_the_board_asks_for_every_metric_and_no_other():
    asked = {name for query in queries() for name in re.findall(r"\bray_\w+", query)}
    assert asked == {f"ray_{name}" for name in NAMES}


def test_the_board_groups_by_tags_that_the_metrics_have():
    for query in queries():
        for name in re.findall(r"\bray_(ris_\w+)", query):
            grouped = set(re.findall(r"by \((\w+)\)", query))
            assert grouped <= {"run", *NAMES[name][1]}, query


def test_the_error_at_one_snr_is_the_mean_over_its_scenes():
    rows = [
        {"snr_db": -5.0, "num_sources": 1, "num_scenes": 3, "capped_error": 0.2},
        {"snr_db": -5.0, "num_sources": 2, "num_scenes": 1, "capped_error": 0.6},
        {"snr_db": 0.0, "num_sources": 1, "num_scenes": 4, "capped_error": 0.1},
    ]
    assert errors_by_snr(rows) == pytest.approx({-5.0: 0.3, 0.0: 0.1})


def exported(port: int) -> dict[str, dict[str, float]]:
    """Value by labels by name, of our metrics on Ray's port."""
    url = f"http://127.0.0.1:{port}/metrics"
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return {}  # not up yet
    found: dict[str, dict[str, float]] = {}
    for name, labels, value in re.findall(r"^ray_(ris_\w+)\{(.*)\} (\S+)$", text, re.MULTILINE):
        found.setdefault(name, {})[labels] = float(value)
    return found


def label(labels: str, name: str) -> str:
    return re.search(rf'\b{name}="([^"]*)"', labels)[1]


def asked(url: str) -> bytes:
    """Return the dashboard's answer to a request with the token, as a browser makes it."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token"]
    token = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return answer.read()


@pytest.fixture
def gpu_node(ray_cluster) -> Iterator[str]:
    """A machine with a CPU and a pretended GPU beside the shared head; its id."""
    # without a port of its own its agent shows no logs
    node = ray_cluster.add_node(num_cpus=1, num_gpus=1, dashboard_agent_listen_port=free_port())
    yield node.node_id
    ray_cluster.remove_node(node)


def drive(out: Path, address: str) -> None:
    """Search in a process of its own: two trials, of which the second meets a NaN, one after the
    other on half a GPU. Leave the id of Ray's job in a file."""
    smoke = spaces.get("smoke")
    first = smoke.anchors[0]
    poison = {**first, "optimizer.learning_rate": poisoned.POISONED_RATE}
    spaces.PRESETS["seen"] = replace(smoke, name="seen", anchors=(first, poison))
    plan = SearchConfig("seen", 2, "seen", out=str(out), address=address)
    store = RunStore.create(
        out / "seen",
        parameters=declared(plan),
        plan={"search": plan.as_dict(), **plan.space_json},
    )
    with connect(plan):
        (out / "job").write_text(ray.get_runtime_context().get_job_id())
        search(plan, store, Resources(cpus=1, gpus=0.5, concurrent=1), train=poisoned.train)
        time.sleep(2)


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_is_seen_on_the_metrics_port_and_in_the_dashboard(
    tmp_path, monkeypatch, ray_cluster, gpu_node
):
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "500")
    driver = multiprocessing.get_context("spawn").Process(
        target=drive, args=(tmp_path, ray_cluster.address)
    )
    driver.start()
    port = ray_cluster.head_node.metrics_export_port
    found: dict[str, dict[str, float]] = {}
    while driver.is_alive():  # as Prometheus does: the last value of every series ever there
        for name, series in exported(port).items():
            mine = {k: value for k, value in series.items() if label(k, "run") == "seen"}
            found.setdefault(name, {}).update(mine)  # beside those of other tests' searches
        time.sleep(0.3)
    assert driver.exitcode == 0
    store = RunStore.open(tmp_path / "seen")
    dashboard = f"http://{ray_cluster.webui_url}"
    listed = json.loads(asked(f"{dashboard}/api/jobs/"))
    running = (tmp_path / "job").read_text()
    actors = json.loads(asked(f"{dashboard}/api/v0/actors?detail=1"))["data"]["result"]
    workers = [one for one in actors["result"] if one["repr_name"] == "trials of seen"]
    logs = [
        asked(f"{dashboard}/api/v0/logs/file?actor_id={one['actor_id']}&suffix=out").decode()
        for one in workers
    ]

    assert set(found) == set(NAMES)
    assert all(found.values())
    trials, rows = store.read("trials"), store.read("epochs")
    outcomes = {label(k, "outcome"): v for k, v in found["ris_trials"].items()}
    assert set(outcomes) == {outcome.value for outcome in Outcome}
    assert {k: v for k, v in outcomes.items() if v} == {"completed": 1, "diverged": 1}
    backend = store.read_config("t0001")["params"]["spectral.backend"]
    assert {label(k, "backend"): v for k, v in found["ris_nan_aborts"].items()} == {backend: 1}
    (best,) = found["ris_best_objective"].values()
    assert best == pytest.approx(trials["objective"].min())
    (epochs,) = found["ris_epochs_total"].values()
    assert epochs == len(rows)
    (gpu_seconds,) = found["ris_gpu_seconds"].values()
    assert gpu_seconds == pytest.approx(0.5 * rows["seconds"].sum())
    rows = store.read("evaluations")
    best_rows = rows[rows["trial_id"] == best_trial(trials)].to_dict("records")
    errors = {float(label(k, "snr_db")): v for k, v in found["ris_capped_error"].items()}
    assert errors == pytest.approx(errors_by_snr(best_rows))
    assert running in {job["job_id"] for job in listed}
    # what runs where: an actor's row has its node, its log the trials
    assert {one["node_id"] for one in workers} == {gpu_node}
    host = platform.node()
    for trial in ("t0000", "t0001"):
        assert any(f"{trial} of seen on {host}" in log for log in logs), logs
