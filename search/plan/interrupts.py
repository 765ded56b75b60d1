"""SIGINT and SIGTERM in our commands: both raise `Interrupted`, wherever the main thread is.

Raising at any point is safe, because a run's files are such that a driver may die at any moment.
Ray changes the handler of SIGTERM: `install_handlers` restores it after `ray.init`, and
`run_undisturbed` ignores it during `ray.shutdown`, whose C++ sets it back.
"""

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130
"""Exit code of an interrupted command."""
AGAIN_SECONDS = 2.0
"""Time after which an interrupt that Python has swallowed is raised again."""
LOCKING = (logging.__file__, "<frozen importlib._bootstrap>")
"""Code that takes a lock before the `try` that releases it: raised in between, an interrupt would
leave it locked for the thread of `run_undisturbed`. Such code delays it by a second at most."""
IGNORE_SECONDS = 0.002
"""Interval at which the signals are set to be ignored again."""


class Interrupted(KeyboardInterrupt):
    """A request to stop; the message is the signal's name."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise `Interrupted` in the context on SIGINT and SIGTERM.

    Python swallows what is raised in a finaliser or while a process is forked, so it is raised
    again every two seconds until an exception arrives here. From then on only the clean-up is
    left, and the process ignores both signals.
    """
    if not _in_main_thread():  # handlers are the main thread's
        yield
        return
    after = {each: signal.getsignal(each) for each in SIGNALS}
    install_handlers()
    try:
        yield
    except BaseException as error:
        cause = interruption_of(error)
        if isinstance(cause, KeyboardInterrupt):
            after = dict.fromkeys(SIGNALS, signal.SIG_IGN)
        if cause is error:
            raise
        raise cause from None
    finally:
        if _interrupt not in after.values():  # else an outer context awaits what was swallowed
            signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in after.items():
            signal.signal(each, handler)


def interruption_of(error: BaseException) -> BaseException:
    """Return the `Interrupted` that caused an error, or else the error itself.

    Python 3.11 turns what is raised while a class is made, as in an import, into a RuntimeError.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Interrupted):
        cause = cause.__cause__
    return cause or error


def install_handlers() -> None:
    """Let SIGINT and SIGTERM raise `Interrupted`, whoever has handled them so far."""
    if _in_main_thread():
        for each in SIGNALS:
            signal.signal(each, _interrupt)


def run_undisturbed(act: Callable[[], object]) -> None:
    """Run `act` to its end while SIGINT and SIGTERM are ignored, also those of a held Ctrl-C.

    It runs in another thread, because only the main thread can set handlers and must do so all
    the time: in the middle of `ray.shutdown`, Ray's C++ sets SIGTERM back to what kills.
    """
    if not _in_main_thread():
        act()
        return
    ignored = (*SIGNALS, signal.SIGALRM)
    before = {each: signal.signal(each, signal.SIG_IGN) for each in ignored}
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(act)
        while wait([running], IGNORE_SECONDS).not_done:
            for each in ignored:
                signal.signal(each, signal.SIG_IGN)
    for each, handler in before.items():
        signal.signal(each, handler)
    running.result()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _interrupt(number: int, frame: FrameType | None, latest: float | None = None) -> None:
    latest = time.monotonic() + 1 if latest is None else latest
    locking = frame is not None and frame.f_code.co_filename in LOCKING
    waits = locking and time.monotonic() < latest
    signal.signal(signal.SIGALRM, lambda _, at: _interrupt(number, at, latest))
    signal.setitimer(signal.ITIMER_REAL, 0.005 if waits else AGAIN_SECONDS, AGAIN_SECONDS)
    if not waits:
        raise Interrupted(signal.Signals(number).name)
