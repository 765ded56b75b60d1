"""Parts of tables are replaced while they are sent and fetched: rows of `trials` never come first.

Here the bucket is in memory, and the files of `epochs` and `trials` hold the number of a version:
a driver writes each version of `epochs` before that of `trials`, some files at every turn.
"""

import json
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice
from types import SimpleNamespace

import pytest

from search.remote import mirror, working_copy
from search.remote.bucket import runs_folder
from search.remote.lock import DRIVER_FILE, Driver
from tests.s3 import OUT

EPOCHS, TRIALS = "epochs/session-0001.parquet", "trials/session-0001.parquet"
FILES = (EPOCHS, TRIALS, "optuna.log", "configs/t0000.json")


class Killed(Exception):
    pass


class Bucket:
    """Files in memory; `turn` is called around everything that is done with them."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[bytes, int]] = {}
        self.turn: Callable[[], object] = lambda: None

    def put(self, name: str, content: bytes) -> None:
        seconds = 10 * (1 + max((time for _, time in self.files.values()), default=0) // 10**10)
        self.files[name] = content, seconds * 10**9

    def list(self) -> dict[str, SimpleNamespace]:
        found = {
            name: SimpleNamespace(size=len(content), mtime_ns=time)
            for name, (content, time) in self.files.items()
        }
        self.turn()
        return found

    def read(self, name: str) -> bytes:
        content, _ = self.files[name]
        self.turn()
        return content

    def write(self, name: str, content: bytes) -> None:
        self.put(name, content)
        self.turn()


@pytest.fixture
def bucket(monkeypatch, tmp_path) -> Bucket:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bucket = Bucket()
    for module in (mirror, working_copy):
        monkeypatch.setattr(module, "RemoteFiles", lambda uri: bucket)
    monkeypatch.setattr(working_copy, "CONNECTIONS", 1)  # turns come one after another
    return bucket


def driving(write: Callable[[str, bytes], object]) -> Iterator[None]:
    """A driver that writes up to three files at a turn."""
    rng = random.Random(5)
    files = ((name, str(version).encode()) for version in count(10) for name in FILES)
    while True:
        for name, content in islice(files, rng.choice((0, 0, 0, 0, 1, 3))):
            write(name, content)
        yield


def version(content: bytes) -> int:
    return int(content or 0)


def test_what_is_sent_is_consistent_at_every_turn(bucket):
    run = runs_folder(OUT) / "x"
    for name in FILES:
        run.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
    turns = driving(lambda name, content: run.joinpath(name).write_bytes(content))

    def turn() -> None:
        next(turns)
        kept = [version(bucket.files.get(name, (b"", 0))[0]) for name in (TRIALS, EPOCHS)]
        assert kept[0] <= kept[1]

    bucket.turn = turn
    with open(run / DRIVER_FILE, "w") as file:
        driver = Driver(file)
        sending = mirror.Mirror(run, f"{OUT}/x", driver)
        for _ in range(50):
            sending.sync()
        assert "exit_code" not in json.loads(bucket.files[DRIVER_FILE][0])
        driver.exit_code = 0
        bucket.turn = lambda: None
        sending.sync()
    assert bucket.files[TRIALS][0] == run.joinpath(TRIALS).read_bytes()
    newest = max(bucket.files, key=lambda name: bucket.files[name][1])
    assert newest == DRIVER_FILE  # with it a follower knows that nothing is to come
    assert json.loads(bucket.files[DRIVER_FILE][0])["exit_code"] == 0


def test_what_is_fetched_is_consistent_wherever_it_ends(bucket):
    run = runs_folder(OUT) / "x"
    for name in ("run.json", ".session", "configs/t0000.json"):
        bucket.put(name, b"{}")
    rng, turns = random.Random(5), driving(bucket.put)

    def turn() -> None:
        next(turns)
        if rng.random() < 0.1:
            raise Killed

    bucket.turn = turn
    for _ in range(200):
        with suppress(Killed):
            working_copy.pull(run)
        own = [run.joinpath(name) for name in (TRIALS, EPOCHS)]
        trials, epochs = (version(path.read_bytes() if path.exists() else b"") for path in own)
        assert trials <= epochs
    assert trials > 20
    bucket.turn = lambda: None
    working_copy.pull(run)
    assert run.joinpath(TRIALS).read_bytes() == bucket.files[TRIALS][0]
