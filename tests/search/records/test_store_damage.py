"""A run folder that is broken, or is none, says what is wrong with it and what to do."""

import pandas as pd
import pyarrow.parquet as pq
import pytest

from search.plan.errors import CorruptRun, RunError, RunNotFound
from search.records.schema import TABLES
from search.records.session_tables import SessionTables
from search.records.store import RunStore
from search.remote.working_copy import resolve_run
from tests.stored import created, ended_trial, epochs, trial

store = pytest.fixture(created)


def test_a_good_run_opens(store):
    store.write_config("t1", {"trial_id": "t1"})
    ended_trial(store, trial(), epochs=epochs())
    assert RunStore.open(store.path).ended() == {"t1"}


@pytest.mark.parametrize(
    ("file", "more"),
    [("configs/t1.json", r".*ray/t1\*.*another configuration"), ("epochs/t1.parquet", "")],
)
def test_an_ended_trial_that_lost_a_file_is_named(store, file, more):
    store.write_config("t1", {"trial_id": "t1"})
    ended_trial(store, trial(), epochs=epochs())
    (store.path / file).unlink()
    with pytest.raises(CorruptRun, match=f"{file} is missing{more}"):
        RunStore.open(store.path)


def test_a_session_that_lost_its_epochs_is_named_with_a_remedy(store):
    stopped = {"outcome": "stopped", "epochs": 3}
    session = SessionTables(store)
    for name in ("t1", "t2"):
        store.write_config(name, {"trial_id": name})
        session.end(trial(name, **stopped), {}, epochs=epochs(name))
    session.flush(now=True)
    (store.path / "epochs" / f"{session.name}.parquet").unlink()
    with pytest.raises(CorruptRun, match=r"epochs/session.* is missing.*delete .*trials/session"):
        RunStore.open(store.path)
    (store.path / "trials" / f"{session.name}.parquet").unlink()  # the remedy
    assert RunStore.open(store.path).ended() == set()


def test_a_part_whose_pages_are_damaged_is_a_corrupt_run(store):
    store.write_config("t1", {"trial_id": "t1"})
    ended_trial(store, trial(), epochs=epochs())
    part = store.path / "trials" / "t1.parquet"
    content = bytearray(part.read_bytes())
    content[4:200] = bytes(196)
    part.write_bytes(content)
    with pytest.raises(
        CorruptRun, match=r"trials/t1\.parquet must be a complete Parquet file.*--resume"
    ):
        store.read("trials")


def test_every_missing_piece_is_named(store):
    for name in ["configs", *TABLES]:
        (store.path / name).rename(store.path / "away")
        with pytest.raises(CorruptRun, match=f"{name} is missing"):
            RunStore.open(store.path)
        (store.path / "away").rename(store.path / name)
    (store.path / "run.json").unlink()
    with pytest.raises(CorruptRun, match=r"run\.json is missing"):
        RunStore.open(store.path)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"format": 99}', '{"format": 1}', '{"format":1,"parameters":[1]}']
)
def test_a_damaged_run_json_is_named(store, content):
    (store.path / "run.json").write_text(content)
    with pytest.raises(CorruptRun, match=r"run\.json must"):
        RunStore.open(store.path)


@pytest.mark.parametrize("keep", [0, 3, 0.5, -1])
def test_a_truncated_part_is_named_with_what_to_delete(store, keep):
    ended_trial(store, trial(), epochs=epochs())
    part = store.path / "epochs" / "t1.parquet"
    content = part.read_bytes()
    part.write_bytes(content[: int(keep * len(content)) if isinstance(keep, float) else keep])
    with pytest.raises(CorruptRun, match=r"epochs/t1\.parquet.*trials/t1\.parquet.*--resume"):
        RunStore.open(store.path)


def test_a_part_of_another_run_is_named(store, tmp_path):
    other = RunStore.create(tmp_path / "other", parameters={}, plan={})
    other.write_part("trials", "t9", [trial("t9")])
    (store.path / "trials" / "t9.parquet").write_bytes(
        (other.path / "trials" / "t9.parquet").read_bytes()
    )
    with pytest.raises(CorruptRun, match=r"t9\.parquet has another"):
        RunStore.open(store.path)


def without(store, table, *names):
    """Takes columns out of every part, as an earlier version had not written them."""
    for part in store.path.joinpath(table).glob("*.parquet"):
        pq.write_table(pq.read_table(part).drop_columns(list(names)), part)


def test_a_run_of_an_earlier_version_gets_the_columns_that_came_since(store):
    store.write_config("t1", {"trial_id": "t1"})
    ended_trial(store, trial(objective_low=0.1), epochs=epochs())
    whole = pd.read_parquet(store.path / "trials")
    without(store, "trials", "objective_low")
    opened = RunStore.open(store.path)
    assert opened.read("trials")["objective_low"].isna().all()
    opened.write_part("trials", "t2", [trial("t2", objective_low=0.2)])
    found = pd.read_parquet(store.path / "trials")
    assert list(found) == list(whole)
    assert found["objective_low"].fillna(0).tolist() == [0, 0.2]
    same = whole.columns.drop("objective_low")
    pd.testing.assert_frame_equal(found[found["trial_id"] == "t1"][same], whole[same])


@pytest.mark.parametrize("name", ["outcome", "params.network.width"])
def test_a_part_without_what_every_version_has_is_refused(store, name):
    store.write_config("t1", {"trial_id": "t1"})
    ended_trial(store, trial(), epochs=epochs())
    without(store, "trials", name)
    with pytest.raises(CorruptRun, match="has another"):
        RunStore.open(store.path)


def test_errors_for_a_person_are_one_line(store, tmp_path):
    (store.path / "epochs" / "t1.parquet").write_bytes(b"PAR1")
    for broken in (
        lambda: RunStore.open(store.path),
        lambda: RunStore.open(tmp_path / "nowhere"),
        lambda: RunStore.create(store.path, parameters={}, plan={}),
        lambda: resolve_run("nothing", tmp_path),
    ):
        with pytest.raises(RunError) as caught:
            broken()
        assert "\n" not in str(caught.value)


# ---------------------------------------------------------------- finding a run


def test_a_run_is_a_name_or_a_path(store, tmp_path, monkeypatch):
    out = tmp_path / "runs"
    assert resolve_run("x", out) == store.path
    assert resolve_run(store.path, out) == store.path
    monkeypatch.chdir(tmp_path)
    assert resolve_run("x").samefile(store.path)
    assert resolve_run("runs/x").samefile(store.path)
    assert resolve_run("./runs/x/", "elsewhere").samefile(store.path)


def test_an_unknown_run_is_refused_with_the_nearest_name(tmp_path):
    with pytest.raises(RunNotFound, match="has no runs"):
        resolve_run("smoke", tmp_path)
    RunStore.create(tmp_path / "smoke-1", parameters={}, plan={})
    with pytest.raises(RunNotFound, match="Did you mean `smoke-1`"):
        resolve_run("smok-1", tmp_path)


def test_a_run_without_its_run_json_is_found_so_that_opening_it_says_so(store, tmp_path):
    (store.path / "run.json").unlink()
    with pytest.raises(CorruptRun, match=r"run\.json is missing"):
        RunStore.open(resolve_run("x", tmp_path / "runs"))
