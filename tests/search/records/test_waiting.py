"""Trials that end together share their parts; none is lost, doubled or forgotten to have ended."""

import datetime
import json

import pandas as pd
import pytest

from search.records.schema import BASELINE_PART
from search.records.store import Ended, RunStore
from search.records.write_buffer import Waiting, drop_orphans, write_left
from tests.stored import created, epochs, trial
from trainer.config import ConfigError
from trainer.record import JOURNAL, read_trial

store = pytest.fixture(created)
STARTED = datetime.datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=datetime.UTC)


def ended(name: str, count: int, **more) -> Ended:
    row = trial(name, count, epochs=count, started=STARTED, **more)
    return Ended({"outcome": "stopped"}, row, epochs(name, count))


def begin(store: RunStore, *names: str) -> None:
    for name in names:
        store.write_config(name, {"trial_id": name})


def parts(store: RunStore, table: str) -> list[str]:
    return sorted(p.stem for p in (store.path / table).glob("t*.parquet"))


def same_tables(one: RunStore, other: RunStore) -> None:
    for table in ("trials", "epochs"):
        frames = [s.read(table).sort_values(["trial_id"], kind="stable") for s in (one, other)]
        pd.testing.assert_frame_equal(*(f.reset_index(drop=True) for f in frames))


def test_the_first_is_written_at_once_and_the_next_ones_together(store, tmp_path):
    begin(store, "t1", "t2", "t4")
    waiting = Waiting(store)
    for count, name in enumerate(("t1", "t2", "t4"), 1):
        waiting.add(ended(name, count))
        waiting.write()
    assert parts(store, "trials") == ["t1"]
    waiting.write(now=True)
    assert parts(store, "trials") == parts(store, "epochs") == ["t1", "t2"]
    assert RunStore.open(store.path).ended() == {"t1", "t2", "t4"}
    assert not (store.path / JOURNAL).exists()
    assert sorted(p.stem for p in (store.path / "endings").iterdir()) == ["t1", "t2"]
    (store.path / "endings" / "t9.json").write_text("{}")
    for name in ("t1", "t2", "t4"):
        assert read_trial(store.path, name) == {
            "params": {"trial_id": name},
            "outcome": "stopped",
        }

    (tmp_path / "alone").mkdir()
    alone = created(tmp_path / "alone")
    for count, name in enumerate(("t1", "t2", "t4"), 1):
        one = ended(name, count)
        alone.write_trial(one.trial, epochs=one.epochs)
    same_tables(store, alone)


def test_an_ending_is_found_before_it_has_a_file_and_beside_damaged_ones(store):
    begin(store, "t1", "t2", "t3")
    waiting = Waiting(store)
    waiting.add(ended("t1", 1))
    assert read_trial(store.path, "t1")["outcome"] == "stopped"  # the journal has it
    waiting.write(now=True)
    waiting.add(ended("t2", 2))
    waiting.write(now=True)
    (store.path / "endings" / "t1.json").write_text("")  # a power cut
    assert read_trial(store.path, "t2")["outcome"] == "stopped"
    for name in ("t1", "t3"):  # it may be in the damaged one
        with pytest.raises(ConfigError, match=r"endings/t1\.json"):
            read_trial(store.path, name)


def test_a_torn_line_that_was_written_to_again_has_not_ended(store):
    begin(store, "t1", "t2")
    Waiting(store).add(ended("t2", 2))
    journal = store.path / JOURNAL
    whole = journal.read_text()
    old = '{"record": {"trial_id": "t1"}, "trial": {"trial_id": "t1"}}'
    journal.write_text(whole[:40] + whole + old + "\n" + whole)
    write_left(store)
    assert store.ended() == {"t2"}


def test_trials_whose_shared_part_of_trials_was_deleted_leave_no_rows_behind(store):
    begin(store, "t1", "t2", "t3", "t4")
    store.write_together([ended("t1", 1), ended("t2", 2)])
    store.write_together([ended("t3", 3)])
    store.write_part("epochs", "t4", epochs("t4"))  # of one that trains
    store.write_part("epochs", "t5", epochs("t5"))  # of one whose configuration was deleted too
    shared = {"trial_id": None, "estimator": "x", "snr_db": 0.0, "num_sources": 1}
    store.write_part("evaluations", BASELINE_PART, [shared])
    store.path.joinpath("trials", "t1.parquet").unlink()
    drop_orphans(store)
    assert set(store.read("epochs")["trial_id"]) == {"t3", "t4"}
    assert len(store.read("evaluations")) == 1


def interrupted_at(store: RunStore, monkeypatch, table: str) -> None:
    """The store writes that table no more, as if its driver had been killed there."""
    written = store._write

    def killed(name, part, rows):
        if name == table:
            raise KeyboardInterrupt
        return written(name, part, rows)

    monkeypatch.setattr(store, "_write", killed)


@pytest.mark.parametrize("table", ["epochs", "trials"])
def test_what_a_killed_driver_could_not_write_the_next_one_writes(store, monkeypatch, table):
    begin(store, "t1", "t2", "t3")
    waiting = Waiting(store)
    waiting.add(ended("t1", 1))
    waiting.write()
    for name, count in (("t2", 2), ("t3", 3)):
        waiting.add(ended(name, count))
    interrupted_at(store, monkeypatch, table)
    with pytest.raises(KeyboardInterrupt):
        waiting.write(now=True)
    with open(store.path / JOURNAL, "a") as journal:
        journal.write('{"ending": {"outcome": "st')  # torn: it has not ended

    reopened = RunStore.open(store.path)
    assert reopened.ended() == {"t1"}
    write_left(reopened)
    assert reopened.ended() == {"t1", "t2", "t3"}
    found = reopened.read("epochs")
    assert not found.duplicated(["trial_id", "epoch"]).any()
    assert len(found) == 1 + 2 + 3
    assert (reopened.read("trials")["started"] == STARTED).all()
    assert read_trial(store.path, "t3")["outcome"] == "stopped"
    assert not (store.path / JOURNAL).exists()
    write_left(reopened)  # nothing is left


def test_a_write_that_was_interrupted_is_repeated_with_what_came_since(store, monkeypatch):
    """Of a driver that lives on for a moment after a signal."""
    begin(store, "t1", "t2")
    waiting = Waiting(store)
    waiting.add(ended("t1", 1))
    with monkeypatch.context() as patched:
        interrupted_at(store, patched, "trials")
        with pytest.raises(KeyboardInterrupt):
            waiting.write()
    waiting.add(ended("t2", 2))
    waiting.write()
    assert RunStore.open(store.path).ended() == {"t1", "t2"}
    assert not store.read("epochs").duplicated(["trial_id", "epoch"]).any()


def test_the_journal_of_what_was_written_counts_no_more(store):
    """Killed between the last part and the end of its journal."""
    begin(store, "t1")
    one = ended("t1", 2)
    waiting = Waiting(store)
    waiting.add(one)
    line = (store.path / JOURNAL).read_text()
    waiting.write()
    (store.path / JOURNAL).write_text(line.replace('"epochs": 2', '"epochs": 1'))
    assert json.loads(line)["trial"]["epochs"] == 2
    write_left(store)
    assert list(store.read("trials")["epochs"]) == [2]
