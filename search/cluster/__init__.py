"""Ray: reaching a cluster, checking its machines, and what runs on workers."""

from .checks import check_nodes, preflight_checks, wait_for_resources
from .connection import connect
from .search_abort import SearchAbort
from .tasks import (
    as_completed,
    export_best,
    measure_best,
    result_of,
    score_baselines,
    score_counts,
    score_hinges,
    score_state,
    submit,
)
from .trainable import Train, Trainer, make_trainable, trainer_of
