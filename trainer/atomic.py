"""Atomic file writes, the one way in which this project puts a whole file in place."""

import os
from contextlib import suppress
from pathlib import Path

from trainer.config import ConfigError


def write_atomically(path: Path, content: bytes, *, sync: bool = False) -> None:
    """Write `content` to `path` in one step: a reader finds the old file or the new one, whole.

    The content goes to a hidden file in the same folder (Arrow and `glob("*")` skip it), which
    then takes the name `path`; the last of several writers wins. This holds however the process
    ends. After a power cut the file may be lost or empty unless `sync` waits for the disk, which
    takes milliseconds.

    Raises:
        OSError: if the folder is missing or cannot be written to; `path` is then as before.
    """
    folder, name = os.path.split(path)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def require_output(path: Path, name: str) -> None:
    """Raise ConfigError, before what takes long, unless a file can be written there.

    Args:
        name: of the file in the message, such as `--out`.
    """
    folder = path.parent
    if path.is_dir() or not (folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)):
        raise ConfigError(
            f"{name} must be a file in a folder that can be written to, but {path} is not. "
            "Choose another."
        )


def write_output(path: Path, content: bytes, name: str) -> None:
    """Write what a user asked for to a file that the user chose, atomically.

    Args:
        name: of the file in the message, such as `--out`.

    Raises:
        ConfigError: if it cannot be written.
    """
    try:
        write_atomically(path, content)
    except OSError as error:
        raise ConfigError(
            f"{name} must be a file that can be written, but {path} is not ({error.strerror}). "
            "Choose another."
        ) from error
