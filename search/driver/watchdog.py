"""A watchdog for trials that hang, in a driver that may have been stopped itself."""

import time
from collections.abc import Callable

STALL_SECONDS = 10.0
"""A driver that did not check for so long was stopped itself; that time is not held against its
trials, whose reports wait."""


class Watchdog:
    """Keeps when each running trial was heard last; `limit_s` [s] is the longest silence."""

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit_s
        self._clock = clock
        self._heard: dict[str, float] = {}
        self._looked = clock()

    def hear(self, name: str) -> None:
        """Note that a trial has started, or reported."""
        self._heard[name] = self._clock()

    def forget(self, name: str) -> None:
        """Expect nothing more of a trial."""
        self._heard.pop(name, None)

    def silent(self) -> set[str]:
        """Return the trials that have been silent for too long; to be called all the time."""
        now = self._clock()
        if (slept := now - self._looked) > STALL_SECONDS:
            self._heard = {name: min(heard + slept, now) for name, heard in self._heard.items()}
        self._looked = now
        return {name for name, heard in self._heard.items() if now - heard > self._limit}
