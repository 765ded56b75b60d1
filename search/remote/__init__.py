"""The place of a run, a disk or a bucket, and the process that drives it.

Everybody works on a local folder, which for a run on a bucket is a working copy. `resolve_run`
finds it, `uri_of` tells what it is a copy of, `lock_run` holds it for one driver and mirrors it.
"""

from .bucket import (
    check_new_run,
    downloaded,
    filesystem_of,
    probe_file,
    push,
    remove_run,
    runs_folder,
    uploaded,
    uri_of,
)
from .follow import attach
from .mirror import lock_run
from .working_copy import resolve_run
