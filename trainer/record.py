"""Records of a trial for its replay, as plain JSON; no torch, no Parquet.

configs/<trial_id>.json  configuration, written before the trial starts
endings/<part>.json      endings of trials, by their ids; one file for each driver session
.ended.jsonl             endings of an earlier version, not in such a file yet, a line each
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .config import ConfigError

CONFIGS = "configs"
ENDINGS = "endings"
JOURNAL = ".ended.jsonl"
STATE_FILE = "state.pt"
BEST_FILE = "best.pt"
"""States of a training in its folder or checkpoint: the last, and that of the best epoch."""
START_FILE = "start.pt"
"""In a run: the checkpoint whose weights all its trials begin with, if they do."""


def read_record(path: Path) -> dict[str, Any]:
    """Read a JSON record that has `params`, or is `params`.

    Raises:
        ConfigError: if there is none, or it is damaged.
    """
    record = _read_object(path)
    return record if "params" in record else {"params": record}


def read_trial(run: Path, trial: str) -> dict[str, Any]:
    """Read the configuration of a run's trial, and its ending if it has ended.

    Raises:
        ConfigError: if there is no such trial, or its files are damaged.
    """
    record = read_record(run / CONFIGS / f"{trial}.json")
    damaged: ConfigError | None = None
    # runs of earlier versions may have a file for the trial alone
    files = sorted(run.glob(f"{ENDINGS}/[!._]*.json"), key=lambda file: file.stem != trial)
    for file in files:
        try:
            ending = _read_object(file).get(trial)
        except ConfigError as error:
            damaged = error
            continue
        if ending is not None:
            return {**record, **ending}
    for ended in read_journal(run / JOURNAL):
        if ended["trial"]["trial_id"] == trial:
            return {**record, **ended["ending"]}
    if damaged is not None:  # the ending may be in that file
        raise damaged
    return record


def read_journal(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the whole lines of a journal.

    A line may be torn, at the end or, where a disk was full, in the middle: its trial counts as
    not ended.
    """
    text = path.read_text(errors="replace") if path.exists() else ""
    for line in text.splitlines(keepends=True):
        try:
            ended = json.loads(line)
        except ValueError:
            continue
        if line.endswith("\n") and isinstance(ended, dict) and {"ending", "trial"} <= set(ended):
            yield ended


def _read_object(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text())
    except FileNotFoundError:
        known = sorted(p.stem for p in path.parent.glob("*.json"))
        hint = f" The folder has {', '.join(known[:8])}." if known else ""
        raise ConfigError(f"a record must exist, but {path} does not.{hint}") from None
    except (OSError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"a record must be readable JSON, but {path} is not: {error}."
        ) from error
    if not isinstance(record, dict):
        raise ConfigError(f"a record must be a JSON object, but {path} holds none.")
    return record
