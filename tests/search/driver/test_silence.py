"""A trial is silent by the time in which its driver listened, not by the time on the wall."""

from search.driver.watchdog import STALL_SECONDS, Silence


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def watched(limit_s, seconds, step=1.0):
    """One who spoke at 0, and a driver that has looked every `step` since."""
    clock = Clock()
    silence = Silence(limit_s, clock)
    silence.hear("t0")
    while clock.now < seconds:
        clock.now += step
        silence.silent()
    return clock, silence


def test_who_says_nothing_for_longer_than_the_limit_is_silent():
    clock, silence = watched(15.0, 15.0)
    assert silence.silent() == set()
    clock.now += 1
    assert silence.silent() == {"t0"}


def test_who_speaks_or_has_ended_is_not():
    clock, silence = watched(15.0, 14.0)
    silence.hear("t0")
    clock.now += 5
    assert silence.silent() == set()
    silence.forget("t0")
    for _ in range(20):
        clock.now += 5
        assert silence.silent() == set()


def test_nobody_is_silent_while_the_driver_sleeps():
    clock, silence = watched(15.0, 10.0)
    clock.now += 1000
    assert silence.silent() == set()
    for _ in range(5):  # the ten seconds before still count
        clock.now += 1
        assert silence.silent() == set()
    clock.now += 1
    assert silence.silent() == {"t0"}


def test_a_driver_that_is_only_slow_sees_a_hung_trial():
    _, silence = watched(60.0, 100.0, step=STALL_SECONDS)
    assert silence.silent() == {"t0"}
