"""All exceptions of `search`; each message is one line with the rule, the value and the remedy."""


class RunError(Exception):
    """A run that cannot be used as requested."""


class RunExists(RunError):
    """A new run in the place of an existing one."""


class RunNotFound(RunError):
    """A name or path without a run."""


class RunNotWritable(RunError):
    """A run on a file system that refuses its files."""


class CorruptRun(RunError):
    """A run folder whose files contradict the layout."""


class Refused(Exception):
    """A search that must not start."""


class BucketError(RunError):
    """Object storage that cannot be used as requested."""


class SearchFailed(Exception):
    """A search that ended itself."""


class StorageLost(Exception):
    """A results folder that takes no writes: the fault of the machine, not of a trial."""
