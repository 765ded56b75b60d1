"""A run folder for tests, and rows for it."""

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


def trial(trial_id="t1", number=0, **more):
    return {"trial_id": trial_id, "number": number, "outcome": Outcome.COMPLETED, **more}


def epochs(trial_id="t1", count=3):
    return [{"trial_id": trial_id, "epoch": e, "loss_total": 1.0 / e} for e in range(1, count + 1)]
