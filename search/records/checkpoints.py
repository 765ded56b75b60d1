"""Checkpoints of a run's trials, below `ray/<folder>/`.

Each holds the training's state, in `best.pt` the state of its best epoch so far and, in
`epochs.json`, everything the trial had reported by then. So states and rows cannot contradict
each other whenever the driver was killed. Workers import this: no Optuna.
"""

import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

from trainer.record import BEST_FILE, STATE_FILE

RAY_FOLDER = "ray"
REPORTS_FILE = "epochs.json"


def read_reports(checkpoint: Path) -> list[dict[str, Any]]:
    """Return all reports of a trial up to a checkpoint; none if the checkpoint is incomplete."""
    try:
        for name in (STATE_FILE, BEST_FILE):
            with zipfile.ZipFile(checkpoint / name) as state:  # what torch.save writes
                if state.testzip() is not None:
                    return []
        reports = json.loads((checkpoint / REPORTS_FILE).read_bytes())
    except (OSError, ValueError, zipfile.BadZipFile):
        return []
    return reports if isinstance(reports, list) else []


def checkpoints_of(run: Path, trial_id: str) -> list[Path]:
    """Return all checkpoints of a trial, of every session, complete or not."""
    return [path for folder in folders(run, trial_id) for path in folder.glob("checkpoint_*")]


def folders(run: Path, trial_id: str) -> list[Path]:
    """Return a trial's folders below `ray/`: `<trial_id>` and, per restart, `<trial_id>.<n>`."""
    ray = run / RAY_FOLDER
    return [p for p in (ray / trial_id, *ray.glob(f"{trial_id}.*")) if p.is_dir()]


def remove_other_folders(run: Path, trial_id: str, folder: str) -> None:
    """Remove a trial's folders of earlier sessions, once `folder` has a newer checkpoint."""
    for other in folders(run, trial_id):
        if other.name != folder:
            shutil.rmtree(other, ignore_errors=True)
