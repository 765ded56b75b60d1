"""Loggers get what the tables have, once; one that fails or hangs costs the search nothing."""

import json
import shutil
import threading
import time
import tomllib
from functools import partial
from pathlib import Path

import pytest
from tensorboardX.proto import plugin_hparams_pb2

from search.driver import log_clients, loggers
from search.plan import SearchConfig, parsed, with_config_file
from search.plan.requirements import LOG_LIBRARIES
from search.records.store import RunStore
from search.report.analysis.health import notes
from search.report.data import load
from search.run import main, plan_from_flags
from tests.local_ray import install
from tests.scripted_search import RATES, Run, scripted_search
from tests.stored import unfinished
from tests.tensorboard_events import events, scalars
from trainer.config import ConfigError

ROOT = Path(__file__).parents[3]
EVERY_ENDING = (RATES["good"], RATES["diverges"], RATES["better"])


@pytest.fixture
def run(local_ray, tmp_path, monkeypatch) -> Run:
    """Runs scripted trials in this process."""
    return partial(scripted_search, tmp_path / "run", monkeypatch)


@pytest.fixture(scope="module")
def logged(tmp_path_factory) -> RunStore:
    """A run with TensorBoard's events, not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        folder = tmp_path_factory.mktemp("logged") / "run"
        return scripted_search(folder, patch, *EVERY_ENDING, log=("tensorboard",))


def assert_scalars_are_the_table(store: RunStore) -> None:
    epochs = store.read("epochs")
    for name, rows in epochs.groupby("trial_id"):
        found = scalars(store.path / "tensorboard" / str(name))
        known = rows.drop(columns=["trial_id", "objective_scenes"])  # by scene: no scalar
        rows = known.dropna(axis="columns", how="all")
        assert found.keys() == {*rows.columns} - {"epoch"}
        for tag, points in found.items():
            assert [step for step, _ in points] == list(rows["epoch"])
            assert [value for _, value in points] == pytest.approx(list(rows[tag]), rel=1e-6)


def test_scalars_are_the_rows_of_epochs(logged):
    assert_scalars_are_the_table(logged)


def test_a_trial_that_goes_on_appends_and_shows_no_epoch_twice(run, logged, tmp_path):
    store = RunStore.open(shutil.copytree(logged.path, tmp_path / "run"))
    unfinished(store, "t0002")
    before = {file: file.read_bytes() for file in store.path.glob("tensorboard/*/*")}
    store = run(*EVERY_ENDING, log=("tensorboard",))
    assert_scalars_are_the_table(store)
    assert {file: file.read_bytes() for file in before} == before
    assert len(list(store.path.glob("tensorboard/t0002/*"))) == 2


def test_drawn_values_stand_beside_the_final_objective(logged):
    for trial in logged.read("trials").to_dict("records"):
        folder = logged.path / "tensorboard" / trial["trial_id"]
        data = plugin_hparams_pb2.HParamsPluginData
        told = [
            data.FromString(value.metadata.plugin_data.content)
            for event in events(folder)
            for value in event.summary.value
            if value.metadata.plugin_data.plugin_name == "hparams"
        ]
        metrics = {m.name.tag for each in told for m in each.experiment.metric_infos}
        (values,) = (e.session_start_info.hparams for e in told if e.session_start_info.hparams)
        rate = values["optimizer.learning_rate"].number_value
        assert rate == trial["params.optimizer.learning_rate"]
        assert values["outcome"].string_value == trial["outcome"]
        assert metrics == ({"objective"} if trial["outcome"] == "completed" else set())
        if metrics:
            assert scalars(folder)["objective"][-1][1] == pytest.approx(trial["objective"])


class Silent:
    """Takes everything, and keeps nothing."""

    def __init__(self, store):
        pass

    def begin(self, trial, drawn, earlier):
        pass

    def epoch(self, trial, epoch, row):
        pass

    def end(self, trial, drawn, ending):
        pass

    def close(self):
        pass


class Full(Silent):
    def epoch(self, trial, epoch, row):
        raise OSError(28, "No space left on device")


class Unreachable(Silent):
    def __init__(self, store):
        raise ConnectionError("nobody at http://127.0.0.1:9")


class Unfinishable(Silent):
    def close(self):
        raise ValueError("not now")


FAILING = [(Full, "No space left"), (Unreachable, "nobody at"), (Unfinishable, "not now")]


@pytest.mark.parametrize(("client", "reason"), FAILING)
def test_a_logger_that_fails_is_said_once_and_touches_no_trial(
    run, monkeypatch, capsys, client, reason
):
    monkeypatch.setitem(log_clients.CLIENTS, "mlflow", client)
    store = run(*EVERY_ENDING, log=("tensorboard", "mlflow"))
    assert list(store.read("trials")["outcome"]) == ["completed", "diverged", "completed"]
    assert_scalars_are_the_table(store)
    said = capsys.readouterr().out
    assert said.count(reason) == 1
    kept = json.loads((store.path / "run.json").read_text())["log_failures"]
    assert kept.keys() == {"mlflow"}
    (noted,) = notes(load(store.path))["Loggers"]
    assert reason in noted


def test_a_logger_that_hangs_holds_up_no_trial_and_the_end_only_for_so_long(
    run, monkeypatch, capsys
):
    left = threading.Event()

    class Hanging(Silent):
        def epoch(self, trial, epoch, row):
            left.wait(60)

    monkeypatch.setitem(log_clients.CLIENTS, "wandb", Hanging)
    monkeypatch.setattr(loggers, "CLOSE_SECONDS", 0.2)
    began = time.monotonic()
    try:
        store = run(*EVERY_ENDING, log=("wandb",))
        assert time.monotonic() - began < 30
    finally:
        left.set()
    assert len(store.read("trials")) == 3
    assert "records not taken in 0 s" in capsys.readouterr().out


@pytest.mark.parametrize("name", LOG_LIBRARIES)
def test_a_library_that_is_missing_is_refused_before_anything_starts(
    name, tmp_path, monkeypatch, capsys
):
    package = LOG_LIBRARIES[name][1]
    monkeypatch.setitem(LOG_LIBRARIES, name, ("no_such_module", package))
    search = ["--preset", "smoke", "--name", "x", "--out", str(tmp_path)]
    for more in ([], ["--dry-run"]):
        assert main([*search, "--log", name, *more]) == 2
        assert f"pip install {package}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_every_logger_has_an_extra_with_its_package():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for name, (_, package) in LOG_LIBRARIES.items():
        wanted = extras["optional-dependencies"][name]
        assert any(each.startswith(f"{package}>=") for each in wanted)
    assert log_clients.CLIENTS.keys() == LOG_LIBRARIES.keys()


def test_flags_a_file_and_python_ask_for_the_same_loggers(tmp_path):
    file = tmp_path / "run.toml"
    file.write_text('preset = "smoke"\nlog = ["tensorboard", "wandb"]\n')
    for given in (
        {"config": str(file)},
        {"preset": "smoke", "log": ["tensorboard", "wandb"]},
        {"preset": "smoke", "log": "tensorboard,wandb,tensorboard"},
    ):
        plan = plan_from_flags(with_config_file(parsed(given)))
        assert plan.log == ("tensorboard", "wandb")
        assert SearchConfig(**plan.as_dict()).log == plan.log
    assert SearchConfig("smoke", 1, "x", log=("none",)).log == ()
    with pytest.raises(ConfigError, match="Did you mean `mlflow`"):
        SearchConfig("smoke", 1, "x", log=("mlfow",))


@pytest.mark.slow
def test_mlflow_has_the_tables_below_one_run_also_after_a_resume(run, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    store = run(*EVERY_ENDING, log=("mlflow",))
    unfinished(store, "t0002")
    store = run(*EVERY_ENDING, log=("mlflow",))
    assert "log_failures" not in json.loads((store.path / "run.json").read_text())
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name(log_clients.PROJECT)
    found = {r.info.run_name: r for r in client.search_runs([experiment.experiment_id])}
    assert found.keys() == {"run", "t0000", "t0001", "t0002"}
    parent = found.pop("run").info.run_id
    epochs = store.read("epochs")
    for trial in store.read("trials").to_dict("records"):
        logged = found[trial["trial_id"]]
        assert logged.data.tags["mlflow.parentRunId"] == parent
        assert logged.data.tags["outcome"] == trial["outcome"]
        failed = trial["outcome"] == "diverged"
        assert logged.info.status == ("FAILED" if failed else "FINISHED")
        drawn = logged.data.params["optimizer.learning_rate"]
        assert float(drawn) == trial["params.optimizer.learning_rate"]
        rows = epochs[epochs["trial_id"] == trial["trial_id"]]
        history = client.get_metric_history(logged.info.run_id, "objective")
        assert [(each.step, each.value) for each in history] == [
            (row["epoch"], row["objective"]) for row in rows.to_dict("records")
        ]


@pytest.mark.slow
def test_an_mlflow_server_that_is_out_of_reach_is_said_once(run, monkeypatch, capsys):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    store = run(*EVERY_ENDING, log=("mlflow",))
    assert len(store.read("trials")) == 3
    said = capsys.readouterr()
    assert said.out.count("MlflowException: API request to http://127.0.0.1:9") == 1
    assert said.err == ""


@pytest.mark.slow
def test_wandb_without_a_key_keeps_a_run_for_each_trial(run, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_MODE", "offline")
    store = run(*EVERY_ENDING, log=("wandb",))
    assert "log_failures" not in json.loads((store.path / "run.json").read_text())
    files = store.path.glob("wandb/offline-run-*/run-*.wandb")
    assert sorted(file.stem[-5:] for file in files) == ["t0000", "t0001", "t0002"]
