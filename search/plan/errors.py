"""What a search refuses or fails with.

Each message is one line with the rule, the value and the remedy.
"""


class RunError(Exception):
    """A run that cannot be used as asked; the message has the rule, the value and the remedy."""


class RunExists(RunError):
    """A new run was to be made where one lies already."""


class RunNotFound(RunError):
    """No run under that name or path."""


class RunNotWritable(RunError):
    """The file system refuses to take the run's files."""


class CorruptRun(RunError):
    """A run folder whose files contradict the layout."""


class Refused(Exception):
    """A search that must not start; the message has the rule, the value and the remedy."""


class BucketError(RunError):
    """Object storage that cannot be used as asked."""


class SearchFailed(Exception):
    """The search ended itself; the message says why."""


class StorageLost(Exception):
    """The results folder takes no writes; the machine's fault, not the trial's."""
