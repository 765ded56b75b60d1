"""SIGINT and SIGTERM, from the first line of a command to its last: both raise `Interrupted`."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Somebody asked the search to stop; the message is the signal's name."""


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Interrupted` in the context.

    Each of them does, until the first has arrived here: an exception that a signal raises may be
    swallowed where it strikes, in a finaliser for one. From then on what is left is the clean-up,
    and the process stays deaf. Raising at any point is safe: the run's files are such that a
    driver may die at any moment.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    after = {each: signal.getsignal(each) for each in INTERRUPTS}
    listen()
    try:
        yield
    except KeyboardInterrupt:
        after = dict.fromkeys(INTERRUPTS, signal.SIG_IGN)
        raise
    finally:
        for each, handler in after.items():
            signal.signal(each, handler)


def listen() -> None:
    """Takes the signals back from whoever has taken them meanwhile, as Ray does at its start."""
    if threading.current_thread() is threading.main_thread():
        for each in INTERRUPTS:
            signal.signal(each, _interrupt)


@contextmanager
def deaf() -> Iterator[None]:
    """What the context does is not disturbed by another signal, nor by a hand held on Ctrl-C."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {each: signal.signal(each, signal.SIG_IGN) for each in INTERRUPTS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _interrupt(number: int, frame: object) -> None:
    raise Interrupted(signal.Signals(number).name)
