"""A run on a disk: its plan, tables, rows, checkpoints, and what a driver session writes."""

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
    remove_other_folders,
)
from .json_files import checked_name, read_json, to_json
from .missing_scores import BEST_TABLES, add_baseline, lacks_scores, unscored
from .rows import JUDGED, failure_row, judged, pick, reached, scored_rows, trial_row
from .run_plan import declared, planned, read_run
from .schema import KEYS, RERUNS, TABLES, TRIALS, Column, Parameters
from .session import SessionTables
from .store import RunStore, part_files, redrawn

__all__ = [
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
    "Parameters",
    "RunStore",
    "SessionTables",
    "add_baseline",
    "arrow_schema",
    "best_trial",
    "best_trials",
    "checked_name",
    "checkpoints_of",
    "declared",
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
    "remove_other_folders",
    "scored_rows",
    "to_json",
    "trial_row",
    "unscored",
]
