"""What the dashboard shows of a search: our metrics on Ray's port, the job in its list."""

import json
import re
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import ray

from search.config import SearchConfig
from search.connection import connect
from search.driver import search
from search.gauges import NAMES, errors_by_snr
from search.outcome import Outcome
from search.preflight import Resources
from search.run import declared
from search.schema import BASELINES
from search.store import RunStore, best_trial

BOARD = Path(__file__).parents[1] / "deploy" / "grafana" / "search.json"


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


def jobs(dashboard: str) -> list[dict[str, object]]:
    """What the dashboard's API lists, asked with the token as a person would."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "get-auth-token"]
    token = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    url = f"{dashboard}/api/jobs/"
    asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return json.load(answer)


@pytest.mark.ray
def test_a_search_is_seen_on_the_metrics_port_and_its_job_in_the_dashboard(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "500")
    plan = SearchConfig("smoke", 2, "seen", out=str(tmp_path))
    store = RunStore.create(
        tmp_path / "seen",
        parameters=declared(plan.space),
        plan={"search": plan.as_dict(), **plan.searched},
    )
    store.write_part("evaluations", BASELINES, [])  # as if they were scored
    found: dict[str, dict[str, float]] = {}
    done = threading.Event()

    def scrape(port: int) -> None:
        """As Prometheus does: the last value of every series that was ever there."""
        while not done.wait(0.3):
            for name, series in exported(port).items():
                found.setdefault(name, {}).update(series)

    with connect(plan) as cluster:
        (node,) = ray.nodes()
        scraping = threading.Thread(target=scrape, args=(node["MetricsExportPort"],))
        scraping.start()
        search(plan, store, Resources(cpus=1, gpus=0, concurrent=1))
        time.sleep(2)
        done.set()
        scraping.join()
        listed = jobs(cluster.dashboard)
        running = ray.get_runtime_context().get_job_id()

    assert set(found) | {"ris_nan_aborts"} == set(NAMES)  # that one comes with the first abort
    assert all(label(labels, "run") == "seen" for each in found.values() for labels in each)
    trials = store.read("trials")
    outcomes = {label(k, "outcome"): v for k, v in found["ris_trials"].items()}
    assert set(outcomes) == {outcome.value for outcome in Outcome}
    assert {k: v for k, v in outcomes.items() if v} == dict(trials["outcome"].value_counts())
    (best,) = found["ris_best_objective"].values()
    assert best == pytest.approx(trials["objective"].min())
    (epochs,) = found["ris_epochs_total"].values()
    assert epochs == trials["epochs"].sum()
    best_rows = store.read("evaluations", best_trial(trials)).to_dict("records")
    errors = {float(label(k, "snr_db")): v for k, v in found["ris_capped_error"].items()}
    assert errors == pytest.approx(errors_by_snr(best_rows))
    assert running in {job["job_id"] for job in listed}
