"""A run folder for tests, and rows for it."""

import pyarrow.compute as pc

from search.plan.outcome import Outcome
from search.records.store import RunStore

PARAMETERS = {
    "eigengap.weight": ("float", "1", "factor of the eigengap term; 0 is off"),
    "eigengap.definition": ("str", "", "which gap"),
    "network.width": ("int", "1", "channels"),
}


def created(tmp_path):
    """For a fixture `store`: a run that nothing has happened in."""
    return RunStore.create(tmp_path / "runs" / "x", parameters=PARAMETERS, plan={"seed": 3})


def ended_trial(store, row, **tables):
    """Writes all rows of a trial that has ended, in parts of its own: `trials` last."""
    for table, rows in (tables | {"trials": [row]}).items():
        store.write_part(table, row["trial_id"], rows)


def unfinished(store, name, **changed):
    """Leaves what a driver leaves that is killed just before it writes the trial's row."""
    store.write_config(name, store.read_config(name) | changed)
    for file in store.path.glob("trials/session-*.parquet"):
        rows = store.read_arrow("trials", file.stem)
        store.write_part("trials", file.stem, rows.filter(pc.field("trial_id") != name))


def trial(trial_id="t1", number=0, **more):
    return {"trial_id": trial_id, "number": number, "outcome": Outcome.COMPLETED, **more}


def epochs(trial_id="t1", count=3):
    return [{"trial_id": trial_id, "epoch": e, "loss_total": 1.0 / e} for e in range(1, count + 1)]
