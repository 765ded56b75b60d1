"""A session's rows reach the tables whole and once, whenever its driver is killed."""

import datetime
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from search.records import session_tables as sessions
from search.records.schema import BASELINE_PART
from search.records.session_tables import SessionTables
from search.records.store import RunStore
from tests.stored import created, ended_trial, epochs, trial
from trainer.config import ConfigError
from trainer.record import JOURNAL, read_trial

store = pytest.fixture(created)
STARTED = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC)
STOPPED = {"outcome": "stopped"}


def begin(store: RunStore, *names: str) -> None:
    for name in names:
        store.write_config(name, {"trial_id": name})


def end(session: SessionTables, name: str, count: int, **more) -> None:
    row = trial(name, count, epochs=count, started=STARTED, outcome="stopped")
    session.end(row | more, STOPPED, epochs=epochs(name, count))


def report(session: SessionTables, name: str, count: int) -> None:
    for row in epochs(name, count):
        session.report(name, row)


def parts(store: RunStore, table: str) -> list[str]:
    return sorted(p.stem for p in (store.path / table).glob("[!e]*.parquet"))


def killed_at(monkeypatch, table: str) -> None:
    """The store writes that table no more, as if its driver had been killed there."""
    written = RunStore._write

    def killed(self, name, part, rows):
        if name == table:
            raise KeyboardInterrupt
        written(self, name, part, rows)

    monkeypatch.setattr(RunStore, "_write", killed)


def test_a_session_has_one_part_per_table_with_all_its_rows(store, monkeypatch):
    monkeypatch.setattr(sessions, "FLUSH_SECONDS", 0.0)
    monkeypatch.setattr(sessions, "FLUSH_SHARE", 1e9)
    begin(store, "t1", "t2", "t3")
    session = SessionTables(store)
    for count, name in ((2, "t2"), (1, "t1")):
        report(session, name, count)
        session.flush()
        assert set(store.read("epochs")["trial_id"]) >= {name}
        assert name not in store.ended()
        end(session, name, count)
        session.flush()
        assert name in store.ended()
    report(session, "t3", 3)
    report(session, "t3", 2)  # its worker was lost: it reports two epochs again
    session.flush()
    for table in ("trials", "epochs", "evaluations", "failures"):
        assert parts(store, table) == ["session-0001"]
    assert RunStore.open(store.path).ended() == {"t1", "t2"}
    assert list(store.read("trials")["trial_id"]) == ["t1", "t2"]
    assert (store.read("trials")["started"] == STARTED).all()
    found = store.read("epochs")
    each = [("t1", 1), ("t2", 1), ("t2", 2), ("t3", 1), ("t3", 2), ("t3", 3)]
    assert list(zip(found["trial_id"], found["epoch"], strict=True)) == each
    pd.testing.assert_frame_equal(found, pd.read_parquet(store.path / "epochs"))
    assert read_trial(store.path, "t2") == {"params": {"trial_id": "t2"}, **STOPPED}


def test_it_writes_every_few_seconds_and_at_its_end_and_only_news(store, monkeypatch):
    now = [100.0]
    monkeypatch.setattr(sessions.time, "monotonic", lambda: now[0])
    begin(store, "t1", "t2", "t3")
    session = SessionTables(store)
    end(session, "t1", 1)
    session.flush()  # the first at once
    assert store.ended() == {"t1"}
    end(session, "t2", 1)
    now[0] += sessions.FLUSH_SECONDS - 0.1
    session.flush()
    assert store.ended() == {"t1"}
    now[0] += 0.1
    session.flush()
    assert store.ended() == {"t1", "t2"}
    end(session, "t3", 1)
    session.flush(now=True)
    assert store.ended() == {"t1", "t2", "t3"}
    stamp = (store.path / "trials" / "session-0001.parquet").stat().st_mtime_ns
    now[0] += 1e3
    session.flush(now=True)
    assert (store.path / "trials" / "session-0001.parquet").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(("seconds", "wait"), [(0.01, 3.0), (0.1, 10.0), (5.0, 30.0)])
def test_slow_writes_come_seldom_but_no_row_waits_longer_than_half_a_minute(
    store, monkeypatch, seconds, wait
):
    now = [100.0]
    monkeypatch.setattr(sessions.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(
        RunStore, "write_endings", lambda *given: now.__setitem__(0, now[0] + seconds)
    )
    session = SessionTables(store)
    end(session, "t1", 1)
    session.flush()
    end(session, "t2", 1)
    now[0] += wait - 0.01
    session.flush()
    assert store.ended() == {"t1"}
    now[0] += 0.02
    session.flush()
    assert store.ended() == {"t1", "t2"}


@pytest.mark.parametrize("table", ["epochs", "trials"])
def test_a_driver_killed_while_it_writes_leaves_no_half_of_a_trial(store, monkeypatch, table):
    begin(store, "t1", "t2", "t3")
    first = SessionTables(store)
    end(first, "t1", 1)
    first.flush(now=True)
    report(first, "t3", 2)
    end(first, "t2", 2)
    with monkeypatch.context() as patched:
        killed_at(patched, table)
        with pytest.raises(KeyboardInterrupt):
            first.flush(now=True)
    reopened = RunStore.open(store.path)
    assert reopened.ended() == {"t1"}

    second = SessionTables(reopened)  # nothing is left of those that have not ended
    assert second.name == "session-0002"
    assert set(reopened.read("epochs")["trial_id"]) == {"t1"}
    assert read_trial(store.path, "t2") == {"params": {"trial_id": "t2"}}
    for name in ("t2", "t3"):
        report(second, name, 2)
        end(second, name, 3)
    second.flush(now=True)
    assert RunStore.open(store.path).ended() == {"t1", "t2", "t3"}
    found = reopened.read("epochs")
    assert not found.duplicated(["trial_id", "epoch"]).any()
    assert len(found) == 1 + 3 + 3


def test_a_flush_that_was_interrupted_is_repeated_with_what_came_since(store, monkeypatch):
    """Of a driver that lives on for a moment after a signal, or whose disk has room again."""
    begin(store, "t1", "t2")
    session = SessionTables(store)
    end(session, "t1", 1)
    with monkeypatch.context() as patched:
        killed_at(patched, "trials")
        with pytest.raises(KeyboardInterrupt):
            session.flush()
    end(session, "t2", 2)
    session.flush(now=True)
    assert RunStore.open(store.path).ended() == {"t1", "t2"}
    assert not store.read("epochs").duplicated(["trial_id", "epoch"]).any()


def test_a_row_that_breaks_a_rule_leaves_its_trial_unended_and_the_others_alone(store):
    begin(store, "t1", "t2")
    session = SessionTables(store)
    end(session, "t1", 1)
    with pytest.raises(ValueError, match="must be finite"):
        end(session, "t2", 2, objective=float("nan"))
    session.flush(now=True)
    assert RunStore.open(store.path).ended() == {"t1"}


def test_rows_without_their_trial_are_removed_from_runs_of_earlier_versions(store):
    """With a part for each trial, or for some that ended together; baselines stay."""
    begin(store, "t1", "t2", "t3", "t4")
    ended_trial(store, trial("t1"), epochs=epochs("t1") + epochs("t2"))
    ended_trial(store, trial("t3"), epochs=epochs("t3"))
    store.write_part("epochs", "t4", epochs("t4"))  # of one that trained when it was killed
    shared = {"trial_id": None, "estimator": "x", "snr_db": 0.0, "num_sources": 1}
    store.write_part("evaluations", BASELINE_PART, [shared])
    store.write_endings("t1", {"t1": STOPPED, "t2": STOPPED})
    (store.path / "endings" / "t9.json").write_text("")  # a power cut
    untouched = (store.path / "epochs" / "t3.parquet").read_bytes()
    SessionTables(store)
    assert set(store.read("epochs")["trial_id"]) == {"t1", "t3"}
    assert len(store.read("evaluations")) == 1
    assert (store.path / "epochs" / "t3.parquet").read_bytes() == untouched
    assert json.loads((store.path / "endings" / "t1.json").read_text()) == {"t1": STOPPED}


def test_an_ending_is_found_beside_damaged_files(store):
    begin(store, "t1", "t2", "t3")
    session = SessionTables(store)
    end(session, "t2", 2)
    session.flush(now=True)
    (store.path / "endings" / "t1.json").write_text("")  # a power cut
    assert read_trial(store.path, "t2")["outcome"] == "stopped"
    for name in ("t1", "t3"):  # it may be in the damaged one
        with pytest.raises(ConfigError, match=r"endings/t1\.json"):
            read_trial(store.path, name)


def line(name: str, count: int) -> str:
    """Of the journal that drivers of an earlier version kept."""
    row = trial(name, count, epochs=count, started=STARTED.isoformat(), outcome="stopped")
    rows = {"epochs": epochs(name, count), "evaluations": [], "failures": []}
    return json.dumps({"ending": STOPPED, "trial": row, **rows}) + "\n"


def test_the_journal_of_an_earlier_version_is_taken_over_once(store):
    begin(store, "t1", "t2", "t3", "t4")
    ended_trial(store, trial("t1", outcome="stopped", epochs=2), epochs=epochs("t1", 2))
    store.write_part("epochs", "t2", epochs("t2", 2))  # killed before it wrote `trials`
    torn = '{"ending": {"outcome": "st'
    other = '{"record": {"trial_id": "t4"}, "trial": {"trial_id": "t4"}}\n'
    journal = store.path / JOURNAL
    journal.write_text(line("t1", 1) + torn + line("t4", 1) + other + line("t2", 2) + torn)
    assert read_trial(store.path, "t2")["outcome"] == "stopped"
    for _ in range(2):
        SessionTables(store)
        assert not journal.exists()
        assert RunStore.open(store.path).ended() == {"t1", "t2"}
        found = store.read("epochs")
        assert not found.duplicated(["trial_id", "epoch"]).any()
        assert len(found) == 2 + 2
    assert sorted(store.read("trials")["epochs"]) == [2, 2]
    assert (store.read("trials")["started"].dropna() == STARTED).all()
    assert read_trial(store.path, "t2")["outcome"] == "stopped"


def test_every_part_has_the_units_of_its_columns(store):
    begin(store, "t1")
    session = SessionTables(store)
    end(session, "t1", 1)
    session.flush(now=True)
    schema = pq.read_schema(store.path / "trials" / "session-0001.parquet")
    assert schema.field("seconds").metadata[b"unit"] == b"s"


WRITER = """
import sys
from search.records import RunStore, SessionTables, session_tables
session_tables.FLUSH_SECONDS, session_tables.FLUSH_SHARE = 0.0, 1e9
store = RunStore.open(sys.argv[1])
tables = SessionTables(store)
for number in range(10**9):
    name, count = f"t{number:06d}", 1 + number % 7
    store.write_config(name, {"trial_id": name})
    for epoch in range(1, count + 1):
        tables.report(name, {"trial_id": name, "epoch": epoch, "step": number})
        tables.flush()
    row = {"trial_id": name, "number": number, "outcome": "stopped", "epochs": count}
    tables.end(row, {}, epochs=list(tables.epochs(name).values()))
    if number == 0:
        print("writing", flush=True)
"""


def test_a_reader_sees_whole_trials_only_also_when_the_writer_is_killed(store):
    """Read first, `trials` has no row without all its epochs."""
    root = Path(__file__).parents[3]
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(store.path)], cwd=root, stdout=subprocess.PIPE
    )
    try:
        assert writer.stdout is not None
        assert writer.stdout.readline().strip() == b"writing"
        seen = {whole(store.path) for _ in range(50)}
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()
    assert len(seen) > 1, "the writer did not get on while we read"
    assert whole(RunStore.open(store.path).path) >= max(seen)


def whole(run: Path) -> int:
    """Return the number of ended trials, each with all its epochs, no row twice."""
    trials = pd.read_parquet(run / "trials")
    epochs = pd.read_parquet(run / "epochs")
    assert not epochs.duplicated(["trial_id", "epoch"]).any()
    found = epochs.groupby("trial_id").size()
    assert (found.reindex(trials["trial_id"]).to_numpy() == trials["epochs"].to_numpy()).all()
    return len(trials)
