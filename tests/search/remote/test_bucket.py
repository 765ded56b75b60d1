"""Runs on object storage: what is on the bucket is a run, whatever dies; against a real server."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyarrow import fs

from search.plan.errors import RunError, RunExists, RunNotFound
from search.records.store import RunStore
from search.remote import bucket, mirror, working_copy
from search.remote.lock import DRIVER_FILE, Driver
from search.remote.mirror import lock_run
from search.remote.working_copy import resolve_run
from search.run import main
from tests.s3 import OUT, elsewhere, held, served, storage
from tests.stored import ended_trial

server = pytest.fixture(served)


def new_run(name: str = "x") -> RunStore:
    path = bucket.runs_folder(OUT) / name
    return RunStore.create(path, parameters={}, plan={"search": {"trials": 2}})


def end_trial(store: RunStore, number: int) -> None:
    name = f"t{number:04d}"
    store.write_config(name, {"trial_id": name, "number": number})
    ended_trial(
        store,
        {"trial_id": name, "number": number, "outcome": "completed", "objective": 0.5},
        epochs=[{"trial_id": name, "epoch": 1}],
    )


def new_mirror(store: RunStore) -> mirror.Mirror:
    """A mirror in the hand of the test, as that of a driver."""
    file = open(store.path / DRIVER_FILE, "w")  # noqa: SIM115  (as long as the mirror)
    return mirror.Mirror(store.path, f"{OUT}/x", Driver(file))


def test_a_path_tells_where_its_run_is_at_home():
    folder = bucket.runs_folder(OUT) / "x"
    assert bucket.uri_of(folder) == f"{OUT}/x"
    assert bucket.uri_of(folder / "ray" / "t0000") == f"{OUT}/x/ray/t0000"
    assert bucket.split_uri(f"{OUT}/x/") == (OUT, "x")
    queried = "gs://b/p?endpoint_override=localhost"
    assert bucket.uri_of(bucket.runs_folder(queried) / "x") == (
        "gs://b/p/x?endpoint_override=localhost"
    )
    assert bucket.uri_of(Path("runs/x")) == str(Path("runs/x").absolute())


def test_what_is_written_in_the_working_copy_is_on_the_bucket(server):
    store = new_run()
    with lock_run(store.path) as driver:
        end_trial(store, 0)
        driver.exit_code = 0
    own = {p.relative_to(store.path).as_posix() for p in store.path.rglob("*") if p.is_file()}
    assert {f"x/{name}" for name in own} == held()
    elsewhere(store.path)
    again = RunStore.open(resolve_run(f"{OUT}/x"))
    assert again.ended() == {"t0000"}
    assert RunStore.open(resolve_run("x", OUT)).ended() == {"t0000"}


def test_a_killed_driver_leaves_a_consistent_run_on_the_bucket(server):
    """Uploads stop anywhere: a row in `trials` never precedes what it rests on."""
    store = new_run()
    sending = new_mirror(store)
    sending.sync()
    write, before = sending._remote.write, dict(sending._sent)
    end_trial(store, 0)
    for after in range(4):
        left = iter(range(after))

        def cut(name: str, content: bytes, left: Iterator[int] = left) -> None:
            next(left)  # raises StopIteration once so many files have been sent
            write(name, content)

        sending._remote.write = cut
        sending._sent = dict(before)
        with pytest.raises(StopIteration):
            sending.sync()
        copy = store.path.with_name("copy")
        shutil.move(store.path, copy)
        RunStore.open(resolve_run(f"{OUT}/x"))  # refuses a run that contradicts itself
        elsewhere(store.path)
        shutil.move(copy, store.path)


def test_the_bucket_counts_unless_this_machine_was_the_last_to_drive(server):
    store = new_run()
    with lock_run(store.path):
        end_trial(store, 0)
    # the bucket was out of reach at the end: the copy is ahead of it
    end_trial(store, 1)
    assert RunStore.open(resolve_run(f"{OUT}/x")).ended() == {"t0000", "t0001"}
    # another machine has driven it since: the copy is behind
    own = store.path.with_name("mine")
    shutil.copytree(store.path, own)
    elsewhere(store.path)
    with lock_run(resolve_run(f"{OUT}/x")):
        end_trial(RunStore.open(store.path), 2)
    elsewhere(store.path)
    shutil.move(own, store.path)
    assert RunStore.open(resolve_run(f"{OUT}/x")).ended() == {"t0000", "t0002"}


def test_a_copy_that_was_only_read_never_counts_as_the_newest(server):
    """Whoever looked at a run while it was driven elsewhere must not resume from that look."""
    store = new_run()
    with lock_run(store.path):
        end_trial(store, 0)
    driving = store.path.with_name("driving")
    shutil.move(store.path, driving)
    assert RunStore.open(resolve_run(f"{OUT}/x")).ended() == {"t0000"}
    looked = store.path.with_name("looked")
    shutil.move(store.path, looked)
    shutil.move(driving, store.path)
    end_trial(store, 1)  # the driver goes on
    new_mirror(store).sync()
    elsewhere(store.path)
    shutil.move(looked, store.path)
    working_copy.pull(store.path, to_drive=True)
    assert RunStore.open(store.path).ended() == {"t0000", "t0001"}


def test_a_damaged_part_on_the_bucket_is_named_in_one_line(server, capsys):
    store = new_run()
    with lock_run(store.path) as driver:
        end_trial(store, 0)
        driver.exit_code = 0
    bucket.RemoteFiles(f"{OUT}/x").write("trials/t0000.parquet", b"PAR1")
    elsewhere(store.path)
    assert main(["--resume", f"{OUT}/x"]) == 2
    said = capsys.readouterr().err
    assert "trials/t0000.parquet must be" in said
    assert "Traceback" not in said


def test_what_a_copy_has_already_is_not_fetched_again(server, monkeypatch):
    """A run of thousands of trials is followed by what is new."""
    monkeypatch.setattr(working_copy, "YOUNG_NS", 0)
    store = new_run()
    with lock_run(store.path):
        end_trial(store, 0)
    time.sleep(1.1)  # the bucket's clock knows seconds
    with storage().open_output_stream("results/searches/x/later") as file:
        file.write(b"0")
    elsewhere(store.path)
    fetched: list[str] = []
    read = bucket.RemoteFiles.read

    def counted(remote, name):
        fetched.append(name)
        return read(remote, name)

    monkeypatch.setattr(bucket.RemoteFiles, "read", counted)
    working_copy.pull(store.path)
    assert "trials/t0000.parquet" in fetched
    fetched.clear()
    working_copy.pull(store.path)
    assert not [name for name in fetched if name.startswith(("trials/", "epochs/", "configs/"))]
    store.path.joinpath("epochs", "t0000.parquet").write_bytes(b"another")
    working_copy.pull(store.path)
    assert "epochs/t0000.parquet" in fetched


@pytest.mark.slow
def test_a_search_on_a_bucket_is_followed_from_another_machine(server, monkeypatch, tmp_path):
    """`--attach s3://...`: endings as they come, and the search's exit code."""
    monkeypatch.setattr(mirror, "MIRROR_SECONDS", 0.2)
    store = new_run()
    code = "import sys; from search.remote import follow; from search.run import main; "
    code += f"follow.MIRROR_SECONDS = 0.2; sys.exit(main(['--attach', '{OUT}/x']))"
    with lock_run(store.path) as driver:
        end_trial(store, 0)
        mirror.Mirror(store.path, f"{OUT}/x", driver).sync()
        follower = subprocess.Popen(
            [sys.executable, "-c", code],
            env=os.environ | {"XDG_CACHE_HOME": str(tmp_path / "elsewhere")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        while "t0000  completed" not in follower.stdout.readline():
            assert follower.poll() is None
        end_trial(store, 1)
        while "t0001  completed" not in follower.stdout.readline():
            assert follower.poll() is None
        driver.exit_code = 0
    rest, _ = follower.communicate(timeout=30)
    assert "ended with exit code 0: 2 of 2 trials" in rest
    assert follower.returncode == 0


def test_a_file_that_is_replaced_while_it_is_read_is_whole(server):
    """Of one version: pyarrow asks for the size first, and then for so many bytes."""

    remote = bucket.RemoteFiles("s3://results")
    coming = [b"longer", b"still longer"]

    class Late:
        """The bucket, on which somebody replaces a file as it is opened."""

        get_file_info = staticmethod(storage().get_file_info)

        def open_input_stream(self, path: str):
            stream = storage().open_input_stream(path)
            if coming:
                remote.write("file", coming.pop(0))
            return stream

    remote.write("file", b"short")
    late = bucket.RemoteFiles("s3://results")
    late._filesystem = Late()
    assert late.read("file") == b"still longer"


def test_a_run_on_a_bucket_has_one_driver_wherever_it_is(server):
    store = new_run()
    with lock_run(store.path):
        own = storage()
        with own.open_input_stream("results/searches/x/.driver") as file:
            state = json.loads(file.read())
        state |= {"host": "another", "seen": time.time()}
        with own.open_output_stream("results/searches/x/.driver") as file:
            file.write(json.dumps(state).encode())
    with own.open_output_stream("results/searches/x/.driver") as file:
        file.write(json.dumps(state).encode())
    with (
        pytest.raises(RunError, match=r"one driver at a time.*another"),
        lock_run(store.path),
    ):
        pass
    with own.open_output_stream("results/searches/x/.driver") as file:
        file.write(json.dumps(state | {"seen": time.time() - 61}).encode())
    with lock_run(store.path):
        pass  # that one has gone


@pytest.fixture
def impatient(server, monkeypatch):
    """The server, at which pyarrow does not try again for six seconds."""

    def filesystem_of(uri: str) -> tuple[fs.FileSystem, str]:
        once = fs.AwsStandardS3RetryStrategy(max_attempts=1)
        where = os.environ["AWS_ENDPOINT_URL"]
        filesystem = fs.S3FileSystem(endpoint_override=where, retry_strategy=once)
        return filesystem, uri.removeprefix("s3://")

    monkeypatch.setattr(bucket, "filesystem_of", filesystem_of)
    return server


def test_a_bucket_that_goes_away_and_comes_back_has_everything(impatient, monkeypatch, capfd):
    monkeypatch.setattr(mirror, "MIRROR_SECONDS", 0.1)
    store = new_run()

    def wait_for(words: str) -> None:
        while words not in capfd.readouterr().out:
            time.sleep(0.05)

    with lock_run(store.path):
        impatient.die()
        end_trial(store, 0)
        wait_for("takes no files")
        impatient.come_back()
        wait_for("takes files again")
        assert "x/trials/t0000.parquet" in held()


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("s3://reslts/x", "Make the bucket first, or correct its name"),
        ("zz://results/x", "Use a path, s3://bucket/prefix or gs://"),
        ("s3://key:secret@results/x", "must not hold credentials"),
        ("file:///results/x", "Give /results/x: a disk has locks and renames"),
    ],
)
def test_storage_that_cannot_be_used_is_refused_in_one_line(server, out, says, capsys):
    assert main(["--preset", "smoke", "--out", out, "--name", "x"]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1, said
    assert says in said[0]
    assert held("results") == set()


def test_missing_and_wrong_credentials_are_refused(impatient, capsys, monkeypatch):
    impatient.tell("reset-auth", b"0")  # from now on it asks who is there
    try:
        assert main(["--preset", "smoke", "--out", OUT, "--name", "x"]) == 2
        assert "AWS_ACCESS_KEY_ID" in capsys.readouterr().err
        monkeypatch.delenv("AWS_ACCESS_KEY_ID")
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
        assert main(["--preset", "smoke", "--out", OUT, "--name", "x"]) == 2
        assert "redentials" in capsys.readouterr().err
    finally:
        impatient.tell("reset-auth", b"1000000000")


def test_a_server_that_does_not_answer_is_refused(impatient, capsys, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert main(["--preset", "smoke", "--out", OUT, "--name", "x"]) == 2
    assert "Check AWS_ENDPOINT_URL and the network" in capsys.readouterr().err


def test_a_report_that_was_written_afterwards_is_on_the_bucket_too(server):
    store = new_run()
    with lock_run(store.path):
        pass
    store.path.joinpath("report").mkdir()
    store.path.joinpath("report", "index.html").write_text("<p>")
    bucket.push(store.path / "report")
    assert "x/report/index.html" in held()


def test_a_run_is_not_overwritten_and_a_missing_one_is_named(server):
    store = new_run()
    with lock_run(store.path):
        pass
    elsewhere(store.path)
    with pytest.raises(RunExists, match="--resume s3://results/searches/x"):
        bucket.check_new_run(store.path)
    with pytest.raises(RunNotFound, match="s3://results/searches/y has none"):
        resolve_run(f"{OUT}/y")


def test_a_folder_and_a_file_come_back_as_they_were_sent(server, tmp_path):
    place = f"{OUT}/x/ray/t0000/checkpoint_000001"
    with bucket.uploaded(place) as folder:
        folder.mkdir(exist_ok=True)
        folder.joinpath("state.pt").write_bytes(b"state")
    with bucket.downloaded(place) as folder:
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == {"state.pt": b"state"}
    with bucket.downloaded(f"{place}/state.pt") as file:
        assert file.read_bytes() == b"state"
