"""A run on a disk: its plan, tables, rows, checkpoints, and what a driver session writes."""

from .arrow import TYPES, arrow_schema
from .best import best_trial, best_trials, rank
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
from .rows import (
    BY_SCENE,
    OBJECTIVE_INTERVAL,
    VALIDATED,
    failure_row,
    mean_by_scene,
    mean_objective,
    pick,
    reached,
    scored_rows,
    trial_row,
)
from .run_plan import declared, planned, read_run, read_start
from .schema import (
    BASELINE_PART,
    GUARD_COLUMNS,
    KEYS,
    RERUNS,
    TABLES,
    TRIALS,
    Column,
    Parameters,
    Row,
    with_interval,
)
from .session_tables import SessionTables
from .store import RunStore, part_files, redrawn
