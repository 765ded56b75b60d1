"""A trial is silent by the time in which its driver listened, not by the time on the wall."""

from search.driver.watchdog import STALL_SECONDS, Watchdog


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def watched(limit_s, seconds, step=1.0):
    """One who spoke at 0, and a driver that has looked every `step` since."""
    clock = Clock()
    watchdog = Watchdog(limit_s, clock)
    watchdog.hear("t0")
    while clock.now < seconds:
        clock.now += step
        watchdog.silent()
    return clock, watchdog


def test_who_says_nothing_for_longer_than_the_limit_is_silent():
    clock, watchdog = watched(15.0, 15.0)
    assert watchdog.silent() == set()
    clock.now += 1
    assert watchdog.silent() == {"t0"}


def test_who_speaks_or_has_ended_is_not():
    clock, watchdog = watched(15.0, 14.0)
    watchdog.hear("t0")
    clock.now += 5
    assert watchdog.silent() == set()
    watchdog.forget("t0")
    for _ in range(20):
        clock.now += 5
        assert watchdog.silent() == set()


def test_nobody_is_silent_while_the_driver_sleeps():
    clock, watchdog = watched(15.0, 10.0)
    clock.now += 1000
    assert watchdog.silent() == set()
    for _ in range(5):  # the ten seconds before still count
        clock.now += 1
        assert watchdog.silent() == set()
    clock.now += 1
    assert watchdog.silent() == {"t0"}


def test_a_driver_that_is_only_slow_sees_a_hung_trial():
    _, watchdog = watched(60.0, 100.0, step=STALL_SECONDS)
    assert watchdog.silent() == {"t0"}
