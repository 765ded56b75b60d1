"""SIGINT and SIGTERM, from the first line of a command to its last: both raise `Interrupted`."""

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
INTERRUPTED = 130
"""Exit code of a command that was."""
AGAIN_SECONDS = 2.0
"""An interrupt that has not arrived by then is raised once more."""
STAY_DEAF_SECONDS = 0.002
"""How soon a signal is ignored again that something has begun to listen to."""


class Interrupted(KeyboardInterrupt):
    """Somebody asked the search to stop; the message is the signal's name."""


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Interrupted` in the context.

    Each of them does, and once more every two seconds, until an exception has arrived here: one
    that strikes in a finaliser, or while a process is forked, is swallowed there. From then on
    what is left is the clean-up, and the process stays deaf. Raising at any point is safe: a run's
    files are such that a driver may die at any moment.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # signals are the main thread's
        return
    after = {each: signal.getsignal(each) for each in INTERRUPTS}
    listen()
    try:
        yield
    except BaseException as error:
        stopped = meant(error)
        if isinstance(stopped, KeyboardInterrupt):
            after = dict.fromkeys(INTERRUPTS, signal.SIG_IGN)
        if stopped is error:
            raise
        raise stopped from None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for each, handler in after.items():
            signal.signal(each, handler)


def meant(error: BaseException) -> BaseException:
    """The interruption that an error stands for, or else the error: what strikes while a class is
    made, as in an import, leaves Python 3.11 as a RuntimeError because of it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, Interrupted):
        cause = cause.__cause__
    return cause or error


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
    left, _ = signal.setitimer(signal.ITIMER_REAL, 0)
    heard = threading.Event()
    staying = threading.Thread(target=_stay_deaf, args=(heard,), daemon=True)
    staying.start()
    try:
        yield
    finally:
        heard.set()
        staying.join()
        for each, handler in before.items():
            signal.signal(each, handler)
        signal.setitimer(signal.ITIMER_REAL, left)


def _stay_deaf(heard: threading.Event) -> None:
    """Ignores the signals again and again until `heard`.

    Ray gives SIGTERM its default back in the middle of its shutdown, and the next one kills.
    `signal.signal` is for the main thread only, and that is in the shutdown.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal.restype = ctypes.c_void_p
    while not heard.wait(STAY_DEAF_SECONDS):
        for each in INTERRUPTS:
            libc.signal(each, int(signal.SIG_IGN))


def _interrupt(number: int, frame: object) -> None:
    def again(alarm: int, frame: object) -> None:
        _interrupt(number, frame)

    signal.signal(signal.SIGALRM, again)
    signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
    raise Interrupted(signal.Signals(number).name)
