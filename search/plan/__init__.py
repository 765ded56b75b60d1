"""The plan of a search and its rules: flags, outcomes, early stopping, resources, signals and all
exceptions of `search`. Free of Ray, Optuna and Parquet; every other room uses it."""

from .changes import require_code, require_space
from .config import RUNS, SearchConfig, objective_window
from .early_stopping import EarlyStopper, Rungs, asha, early_stopper, hyperband, judged_epochs
from .environment import (
    PACKAGES,
    STORAGE_ENV,
    WORKER_ENV,
    freeze_loaded_objects,
    set_ray_environment,
)
from .errors import (
    BucketError,
    CorruptRun,
    Refused,
    RunError,
    RunExists,
    RunNotFound,
    RunNotWritable,
    SearchFailed,
    StorageLost,
)
from .interrupts import (
    INTERRUPTED,
    Interrupted,
    install_handlers,
    interruptible,
    interruption_of,
    run_undisturbed,
)
from .options import (
    CHANGES,
    CONFIG_FILE,
    RESOURCE_FLAGS,
    add_flags,
    dotted,
    flag_of,
    given,
    parsed,
    parser,
    resource_flags,
    run_command,
    with_config_file,
)
from .outcome import RULES, WORST_OBJECTIVE, Outcome, classify, classify_error, crash_signature
from .requirements import check_address, check_loggers, check_writable, version_mismatch
from .rerun import MAX_SEEDS, FreshScenes, Rerun, training_seeds
from .resources import (
    GB,
    Cluster,
    Memory,
    Node,
    Resources,
    fits,
    resolve_resources,
    too_large,
    with_memory,
)
