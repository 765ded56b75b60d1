"""Ray: reaching a cluster, checking its machines, and what runs on workers."""

from .checks import check_nodes, preflight_checks, room_for
from .connection import as_ready, connect, on_worker, result_of
from .stopper import EndSearch
from .tasks import baselines_task, export_task, hinges_task, measure_task, state_task
from .trainable import Train, make_trainable

__all__ = [
    "EndSearch",
    "Train",
    "as_ready",
    "baselines_task",
    "check_nodes",
    "connect",
    "export_task",
    "hinges_task",
    "make_trainable",
    "measure_task",
    "on_worker",
    "preflight_checks",
    "result_of",
    "room_for",
    "state_task",
]
