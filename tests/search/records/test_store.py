"""A run folder is readable at any moment and holds every row once."""

import datetime
import json

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from search.plan.errors import CorruptRun, RunExists, RunNotFound, RunNotWritable
from search.plan.outcome import Outcome
from search.records.arrow import RowError, arrow_schema
from search.records.best import best_trial
from search.records.schema import TABLES, columns
from search.records.store import RunStore
from tests.stored import PARAMETERS, created, ended_trial, epochs, trial

store = pytest.fixture(created)


def files_under(path):
    return sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file())


# ---------------------------------------------------------------- what a new run looks like


@pytest.mark.parametrize("table", TABLES)
def test_pandas_reads_a_run_that_has_only_empty_parts(store, table):
    frame = pd.read_parquet(store.path / table)
    assert len(frame) == 0
    assert list(frame) == [c.name for c in columns(table, PARAMETERS)]


def test_every_field_has_a_unit_and_a_description_in_the_file(store):
    for table in TABLES:
        for field in pq.read_schema(store.path / table / "empty.parquet"):
            assert b"unit" in field.metadata, (table, field.name)
            assert field.metadata[b"description"].strip(), (table, field.name)
    schema = pq.read_schema(store.path / "trials" / "empty.parquet")
    assert schema.field("seconds").metadata[b"unit"] == b"s"
    assert schema.field("params.network.width").metadata[b"description"] == b"channels"
    assert schema.field("params.network.width").type == "int64"


def test_run_json_has_the_plan_and_survives_a_round_trip(store):
    assert json.loads((store.path / "run.json").read_text())["seed"] == 3
    again = RunStore.open(store.path)
    assert again.plan == store.plan == {"seed": 3}
    assert again.parameters == PARAMETERS
    store.write_run({"seed": 3, "trials": 128})
    assert RunStore.open(store.path).plan == {"seed": 3, "trials": 128}


def test_a_plan_that_json_cannot_hold_leaves_no_run(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        RunStore.create(tmp_path / "x", parameters={}, plan={"limit": float("nan")})
    assert files_under(tmp_path) == []
    with pytest.raises(ValueError, match="must not name format"):
        RunStore.create(tmp_path / "x", parameters={}, plan={"format": 2})
    assert list(tmp_path.iterdir()) == []


def test_what_a_run_is_created_with_appears_with_it(tmp_path):
    RunStore.create(tmp_path / "x", parameters={}, plan={}, files={"warm.json": "{}"})
    assert (tmp_path / "x" / "warm.json").read_text() == "{}"
    with pytest.raises(RunNotWritable):
        RunStore.create(tmp_path / "y", parameters={}, plan={}, files={"run.json/x": "{}"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


def test_an_existing_folder_is_refused_and_left_alone(store, tmp_path):
    before = {f: (store.path / f).read_bytes() for f in files_under(store.path)}
    with pytest.raises(RunExists, match=r"--resume .*x`, or choose another `--name`"):
        RunStore.create(store.path, parameters={}, plan={})
    assert {f: (store.path / f).read_bytes() for f in files_under(store.path)} == before
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunExists):
        RunStore.create(tmp_path / "file", parameters={}, plan={})
    with pytest.raises(RunNotWritable, match="--out"):
        RunStore.create(tmp_path / "file" / "x", parameters={}, plan={})
    assert (tmp_path / "file").read_text() == "mine"


def test_a_parameter_of_an_unknown_type_is_refused(tmp_path):
    with pytest.raises(RowError, match="network"):
        RunStore.create(tmp_path / "x", parameters={"network": ("dict", "", "?")}, plan={})


# ---------------------------------------------------------------- rows


def test_rows_come_back_as_they_went_in(store):
    started = datetime.datetime(2026, 1, 2, 3, 4, 5, tzinfo=datetime.UTC)
    row = trial(
        started=started,
        objective=np.float32(0.5),
        seed=np.int64(7),
        **{"params.eigengap.weight": 0, "params.network.width": 32},
    )
    store.write_part("trials", "t1", [row])
    (got,) = store.read("trials").to_dict("records")
    assert got["outcome"] == "completed"
    assert got["started"] == started
    assert (got["objective"], got["seed"]) == (0.5, 7)
    assert got["params.eigengap.weight"] == 0.0
    assert pd.isna(got["params.eigengap.definition"])  # absent from the trial: null
    assert pd.isna(got["cause"])
    pd.testing.assert_frame_equal(store.read("trials"), pd.read_parquet(store.path / "trials"))


def test_all_parts_share_one_schema_with_metadata(store):
    ended_trial(store, trial(), epochs=epochs())
    store.write_part("evaluations", "baselines", [baseline()])
    for table in TABLES:
        expected = arrow_schema(table, PARAMETERS)
        for part in (store.path / table).glob("*.parquet"):
            assert pq.read_schema(part).equals(expected, check_metadata=False)
            for field in pq.read_schema(part):
                assert expected.field(field.name).metadata.items() <= field.metadata.items()


def baseline(**more):
    return {
        "trial_id": None,
        "estimator": "lmmse_music",
        "snr_db": -5.0,
        "num_sources": 1,
        "evaluation_seed": 11,
    } | more


def test_writing_again_replaces_and_never_doubles(store):
    for count in (3, 5, 0, 2):
        store.write_part("epochs", "t1", epochs(count=count))
        assert store.read("epochs")["epoch"].tolist() == list(range(1, count + 1))
    assert files_under(store.path / "epochs") == ["empty.parquet", "t1.parquet"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -np.inf, np.float32("nan")])
@pytest.mark.parametrize("table", TABLES)
def test_no_float_column_takes_a_number_that_is_not_finite(store, table, bad):
    for column in (c for c in columns(table, PARAMETERS) if c.type == "float"):
        part = "t1"
        some = {"str": part, "int": 0, "int32": 0, "float": 0.0}
        row = {c.name: some[c.type] for c in columns(table, PARAMETERS) if c.required}
        row |= {"trial_id": part}
        with pytest.raises(RowError, match=rf"{table}\.{column.name}. must be finite or null"):
            store.write_part(table, part, [row | {column.name: bad}])
        assert files_under(store.path / table) == ["empty.parquet"]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"objectiv": 1.0}, "Did you mean `objective`"),
        ({"outcome": None}, "must have a value"),
        ({"objective": "0.3"}, "must be a float"),
        ({"objective": True}, "must be a float"),
        ({"seed": 1.5}, "must be a int"),
        ({"host": 3}, "must be a str"),
        ({"started": datetime.datetime(2026, 1, 2)}, "time zone"),
        ({"params.eigengap.margin": 0.1}, "no column"),
    ],
)
def test_rows_that_break_a_rule_are_refused(store, row, says):
    with pytest.raises(RowError, match=says):
        store.write_part("trials", "t1", [trial() | row])
    assert files_under(store.path / "trials") == ["empty.parquet"]


def test_a_key_is_written_once(store):
    with pytest.raises(RowError, match="epoch=2"):
        store.write_part("epochs", "t1", [*epochs(), {"trial_id": "t1", "epoch": 2}])
    rows = [baseline(), baseline(snr_db=0.0), baseline(num_sources=2), baseline(estimator="crb")]
    store.write_part("evaluations", "baselines", rows)
    assert len(store.read("evaluations")) == 4
    with pytest.raises(RowError, match="lmmse_music"):
        store.write_part("evaluations", "baselines", [*rows, baseline()])
    assert len(store.read("evaluations", "t1")) == 0  # there is no such part


@pytest.mark.parametrize("name", ["../x", ".hidden", "_hidden", "a/b", ""])
def test_names_that_readers_skip_or_that_leave_the_folder_are_refused(store, name):
    with pytest.raises(ValueError, match="letters, digits"):
        store.write_part("epochs", name, [])
    with pytest.raises(ValueError, match="letters, digits"):
        store.write_config(name, {})


def test_names_of_the_house_are_refused(store):
    with pytest.raises(ValueError, match="Rename the part"):
        store.write_part("epochs", "empty", [])
    with pytest.raises(ValueError, match="Did you mean `epochs`"):
        store.write_part("epoch", "t1", [])


def test_configs(store):
    config = {"config": {"seed": 3}, "failure": None}
    store.write_config("t1", {"old": 1})
    store.write_config("t1", config)
    store.write_config("t0", {})
    assert store.read_config("t1") == config
    assert store.started() == ["t0", "t1"]
    assert store.ended() == set()
    with pytest.raises(RunNotFound, match="Did you mean `t1`"):
        store.read_config("t11")
    (store.path / "configs" / "t1.json").write_text('{"config": {"se')
    with pytest.raises(CorruptRun, match=r"t1\.json must be readable JSON"):
        store.read_config("t1")


@pytest.mark.parametrize(
    ("above", "best"), [((0, 3, None), "t2"), ((1, 1, 0), "t2"), ((1, 3, 2), "t1"), ((), "t1")]
)
def test_a_guarded_trial_is_best_only_if_all_are(store, above, best):
    """Not compared is not guarded; how many points are above does not matter."""
    for number, objective in enumerate((0.5, 0.3, 0.4)):
        row = trial(f"t{number}", number) | {"objective": objective}
        row |= {"guard_above": above[number]} if above else {}
        store.write_part("trials", f"t{number}", [row])
    assert best_trial(store.read("trials")) == best


def test_the_best_trial_is_completed_and_the_smallest(store):
    assert best_trial(store.read("trials")) is None
    objectives = {
        "t0": (Outcome.STOPPED, 0.1),  # of a lower fidelity
        "t1": (Outcome.DIVERGED, 0.05),
        "t2": (Outcome.COMPLETED, 0.4),
        "t3": (Outcome.COMPLETED, 0.3),
        "t4": (Outcome.COMPLETED, 0.3),  # a tie: the older one stays
        "t5": (Outcome.COMPLETED, None),
    }
    for number, (name, (outcome, objective)) in enumerate(objectives.items()):
        row = trial(name, number) | {"outcome": outcome, "objective": objective}
        store.write_part("trials", name, [row])
    trials = store.read("trials")
    assert best_trial(trials) == "t3"
    assert best_trial(trials[trials["trial_id"].isin(["t0", "t1", "t5"])]) is None
