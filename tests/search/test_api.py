"""The Python API: the command's way and its errors, as values and exceptions."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import spaces
from search import open_run, run_search
from search import run as search_run
from search.api import Run
from search.plan import RunError, SearchFailed, parsed, parser, with_config_file
from search.plan.interrupts import interruptible
from search.records.store import RunStore
from trainer.config import ConfigError

ROOT = Path(__file__).parents[2]
FEW = {"evaluation.num_scenes": 8, "evaluation.num_test_scenes": 8, "scene.max_sources": 1}


def test_keywords_make_the_plan_that_the_same_flags_make():
    given = {
        "preset": "smoke",
        "trials": 5,
        "name": "x",
        "objectives": ("capped_error", "cost"),
        "set": {"scene.num_antennas": 8, "evaluation": {"objective_snr_db": [-10.0, -5.0]}},
        "range": {"optimizer.learning_rate": (1e-3, 1e-2, "log")},
        "choices": {"network.width": (8, 16)},
        "no_preflight": True,
    }
    words = (
        "--preset smoke --trials 5 --name x --objectives capped_error,cost --no-preflight --set "
        "scene.num_antennas=8 evaluation.objective_snr_db=[-10.0,-5.0] --range "
        "optimizer.learning_rate=0.001:0.01:log --choices network.width=8,16"
    )
    ours, theirs = with_config_file(parsed(given)), parser().parse_args(words.split())
    assert ours.no_preflight
    plans = [search_run.plan_from_flags(args) for args in (ours, with_config_file(theirs))]
    assert plans[0].space_json == plans[1].space_json
    assert plans[0].objectives == plans[1].objectives
    assert (plans[0].trials, plans[0].name) == (5, "x")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"resume": Run(Path("no/such/run"))}, "no/such/run"),
        ({"space": "smok"}, "Did you mean `smoke`"),
        ({"space": "my_space.py"}, "code is named as file.py:name"),
        ({"space": spaces.get("smoke")}, "Put your own space into a file"),
        ({"space": "smoke", "trials": 0}, "`--trials >= 1` must hold, but got 0"),
        ({"sampleer": "random"}, "Did you mean `--sampler`"),
        ({"dry_run": True}, "takes no 'dry_run'"),
        ({"set": {"network.knd": "unrolled"}}, "Did you mean `network.kind`"),
    ],
)
def test_a_bad_argument_raises_what_the_command_prints(given, says, tmp_path):
    with pytest.raises((ConfigError, RunError), match=says):
        run_search(**given, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_a_run_to_resume_and_ctrl_c_as_it_was(tmp_path, monkeypatch):
    def interrupted(*given, **more):
        with interruptible():
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(search_run, "run_locked", interrupted)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run_search("smoke", name="x", out=tmp_path)
    assert signal.getsignal(signal.SIGINT) is before
    run = open_run("x", tmp_path)
    assert (len(run.trials()), run.best()) == (0, None)


def test_a_search_that_ended_itself_raises_what_the_command_prints(tmp_path, monkeypatch, capsys):
    def fails(*given, **more):
        raise SearchFailed("three trials crashed alike")

    monkeypatch.setattr(search_run, "_run_on_cluster", fails)
    with pytest.raises(SearchFailed, match="crashed alike"):
        run_search("smoke", name="x", out=tmp_path)
    assert search_run.main(["--preset", "smoke", "--name", "y", "--out", str(tmp_path)]) == 1
    assert "failed: three trials crashed alike" in capsys.readouterr().err
    for name in ("x", "y"):  # as whoever follows the run reads it
        assert json.loads((tmp_path / name / ".driver").read_text())["exit_code"] == 1


@pytest.mark.ray
def test_a_run_is_read_as_its_tables_have_it(smoke, tmp_path):
    run = open_run(shutil.copytree(smoke[0], tmp_path / "smoke"))
    assert run.trials().equals(RunStore.open(run.path).read("trials"))
    assert set(run.epochs()["trial_id"]) == set(run.trials()["trial_id"])
    best = run.best()
    completed = run.trials().query("outcome == 'completed'").set_index("trial_id")
    row = completed.loc[best.id]
    assert best.objective == row["objective"]
    assert best.params == {
        name.removeprefix("params."): value
        for name, value in row.items()
        if name.startswith("params.") and not pd.isna(value)
    }
    assert best.model == run.path / "best"
    for table in ("spectra", "pseudospectra"):  # as if another trial's network lay there
        run.path.joinpath(table, f"{best.id}.parquet").unlink()
    assert run.best().model is None
    with pytest.raises(ConfigError, match="Did you mean `epochs`"):
        run.table("epoch")


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_from_python_ends_in_its_run(tmp_path, address):
    given = {"set": FEW, "out": tmp_path, "name": "x", "address": address, "no_preflight": True}
    run = run_search("smoke", trials=1, **given)
    best = run.best()
    assert best.model.is_dir()
    assert best.params.keys() <= set(spaces.get("smoke").parameters())
    assert run.report().is_file()


def test_the_packages_load_nothing_heavy_before_it_is_asked_for():
    heavy = {"ray", "torch", "pandas", "optuna", "numpy"}
    code = f"import sys, search, trainer; print(*({heavy!r} & set(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.split() == []
