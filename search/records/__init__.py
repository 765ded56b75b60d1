"""A run on a disk: its tables, rows, plan and checkpoints."""

from .arrow import TYPES, arrow_schema
from .best import best_trial, best_trials
from .checkpoints import (
    BEST_FILE,
    RAY_FOLDER,
    REPORTS_FILE,
    STATE_FILE,
    checkpoints_of,
    folders,
    read_reports,
)
from .files import checked_name, part_files, read_json, read_run, to_json
from .missing_scores import BEST_TABLES, add_baseline, lacks_scores, unscored
from .rows import JUDGED, failure_row, judged, pick, reached, scored_rows, trial_row
from .run_plan import declared, planned
from .schema import BASELINE_PART, KEYS, RERUNS, TABLES, TRIALS, Column, Parameters
from .store import Ended, RunStore, redrawn
from .write_buffer import Waiting, drop_orphans, write_left

__all__ = [
    "BASELINE_PART",
    "BEST_FILE",
    "BEST_TABLES",
    "JUDGED",
    "KEYS",
    "RAY_FOLDER",
    "REPORTS_FILE",
    "RERUNS",
    "STATE_FILE",
    "TABLES",
    "TRIALS",
    "TYPES",
    "Column",
    "Ended",
    "Parameters",
    "RunStore",
    "Waiting",
    "add_baseline",
    "arrow_schema",
    "best_trial",
    "best_trials",
    "checked_name",
    "checkpoints_of",
    "declared",
    "drop_orphans",
    "failure_row",
    "folders",
    "judged",
    "lacks_scores",
    "part_files",
    "pick",
    "planned",
    "reached",
    "read_json",
    "read_reports",
    "read_run",
    "redrawn",
    "scored_rows",
    "to_json",
    "trial_row",
    "unscored",
    "write_left",
]
