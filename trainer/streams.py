"""A command that outlives whoever reads what it prints: `| head` that has seen enough, a closed
terminal, a log on a disk that is full. Neither a search nor a training is to end for that."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO, cast


class Lasting:
    """A stream that drops what nobody takes any more.

    Args:
        stream: where the text goes, until it is refused.
        name: of the stream, for the one line on stderr that says so.
    """

    def __init__(self, stream: TextIO, name: str) -> None:
        self._stream = stream
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        # the descriptor, not this object alone: what is buffered must go somewhere at the end
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())
        os.close(nowhere)
        if self._name != "stderr":
            said = f"{self._name} takes no more text ({error.strerror}); going on without"
            print(said, file=sys.stderr)


@contextmanager
def lasting() -> Iterator[None]:
    """Nothing printed in the context fails."""
    before = sys.stdout, sys.stderr
    sys.stdout = cast(TextIO, Lasting(before[0], "stdout"))
    sys.stderr = cast(TextIO, Lasting(before[1], "stderr"))
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stdout, sys.stderr = before
