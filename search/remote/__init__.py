"""Where a run is at home, on a disk or a bucket, and who drives it."""

from .bucket import brought, handed, home_of, opened
from .follow import attach
from .locate import resolve_run
from .mirror import driving, push

__all__ = ["attach", "brought", "driving", "handed", "home_of", "opened", "push", "resolve_run"]
