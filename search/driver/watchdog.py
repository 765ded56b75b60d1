"""Who has said nothing for too long, by the clock of a process that may have slept itself."""

import time
from collections.abc import Callable

STALL_SECONDS = 10.0
"""A process that did not look for so long had been stopped: nobody was silent meanwhile."""


class Silence:
    """When each of several was heard last.

    Args:
        limit_s: who is silent for longer is `silent`.
        clock: seconds that only grow.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit_s
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._looked = clock()

    def hear(self, name: str) -> None:
        """It has begun, or said something."""
        self._heard[name] = self._clock()

    def forget(self, name: str) -> None:
        """It is no longer expected to say anything."""
        self._heard.pop(name, None)

    def silent(self) -> set[str]:
        """Who has been silent for too long; to be asked all the time."""
        now = self._clock()
        if (slept := now - self._looked) > STALL_SECONDS:  # what was said then is still to come
            self._heard = {name: min(heard + slept, now) for name, heard in self._heard.items()}
        self._looked = now
        return {name for name, heard in self._heard.items() if now - heard > self._limit}
