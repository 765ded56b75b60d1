"""Runs on object storage (`--out s3://bucket/prefix`, gs://, any that pyarrow speaks).

Object storage has neither atomic renames nor locks nor files that grow, on which a run's rules and
Optuna's journal rest. So a run on a bucket has a working copy on the driver's disk, where all of
it is as on any disk, and the bucket is its mirror (`mirror.py`). Only checkpoints go from the
workers to the bucket directly.

The working copy's folder is named after the bucket, so that a path tells where its run is at home.
"""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from search.plan import BucketError, RunExists


def is_uri(place: str | Path) -> bool:
    """Whether `--out` or RUN is on object storage."""
    return "://" in str(place)


def copies() -> Path:
    """Folder of all working copies on this machine."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home).absolute() / "ris-eigengap-search" / "runs"


def split(uri: str) -> tuple[str, str]:
    """The `--out` and the name that the URI of a run is made of."""
    scheme, host, path, query, _ = urlsplit(uri.rstrip("/"))
    folder, _, name = path.rpartition("/")
    return urlunsplit((scheme, host, folder, query, "")), name


def folder_of(out: str | Path) -> Path:
    """The folder of runs that `--out` stands for: itself, or that of its working copies.

    Raises:
        BucketError: if the URI holds credentials.
    """
    if not is_uri(out):
        return Path(out)
    if urlsplit(str(out)).username is not None:
        raise BucketError(
            "a URI must not hold credentials, since run.json keeps it, but --out does. Put them "
            "in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile."
        )
    return copies() / quote(str(out).rstrip("/"), safe="")


def home_of(path: Path) -> str:
    """Where a file of a run is at home: a URI if the path is in a working copy, or else itself."""
    path = path.absolute()
    if copies() not in path.parents:
        return str(path)
    name, *below = path.relative_to(copies()).parts
    scheme, host, folder, query, _ = urlsplit(unquote(name))
    return urlunsplit((scheme, host, "/".join([folder, *below]), query, ""))


def opened(place: str) -> tuple[fs.FileSystem, str]:
    """The file system of a path or URI, and the path on it.

    Raises:
        BucketError: for a URI that pyarrow does not know.
    """
    if not is_uri(place):
        return fs.LocalFileSystem(), place
    if place.startswith("file:"):
        raise BucketError(
            f"a folder is given as a path, but {place} is a URI. Give {urlsplit(place).path}: a "
            "disk has locks and renames, and needs no working copy."
        )
    try:
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(place)
    except (pa.ArrowException, ValueError, OSError) as error:
        raise refusal(place, error) from None
    return found


def check(out: str) -> None:
    """Refuses object storage that cannot be written to, by writing to it.

    Raises:
        BucketError: with what the storage said, and a remedy.
    """
    where, path = opened(out)
    probe = f"{path}/.probe-{os.getpid()}"
    try:
        with where.open_output_stream(probe) as file:
            file.write(b"0")
        where.delete_file(probe)
    except OSError as error:
        raise refusal(out, error) from None


@contextlib.contextmanager
def brought(place: str) -> Iterator[Path]:
    """A folder or file as a local path: itself, or a copy for as long as the context lasts."""
    if not is_uri(place):
        yield Path(place)
        return
    where, path = opened(place)
    with tempfile.TemporaryDirectory() as here:
        there = Path(here) / path.rsplit("/", 1)[-1]
        if where.get_file_info(path).is_file:
            fs.copy_files(path, str(there), source_filesystem=where)
        else:
            there.mkdir()
            fs.copy_files(path, str(there), source_filesystem=where)
        yield there


@contextlib.contextmanager
def handed(place: str) -> Iterator[Path]:
    """A folder to write as a local path: itself, or one that is sent when the context ends.

    Raises:
        BucketError: if the bucket does not take it.
    """
    if not is_uri(place):
        yield Path(place)
        return
    where, path = opened(place)
    with tempfile.TemporaryDirectory() as here:
        there = Path(here) / path.rsplit("/", 1)[-1]
        yield there
        try:
            fs.copy_files(str(there), path, destination_filesystem=where)
        except OSError as error:
            raise refusal(place, error) from None


def refuse_existing(home: str) -> None:
    """Raises RunExists if there is a run under that URI already."""
    where, path = opened(home)
    try:
        if where.get_file_info(f"{path}/run.json").is_file:
            raise RunExists(
                f"a new run needs a new name, but {home} exists. Continue it with "
                f"`--resume {home}`, or choose another `--name`."
            )
    except OSError as error:
        raise refusal(home, error) from None


def remove(run: Path) -> None:
    """Removes a run that was made a moment ago, from its bucket too."""
    home = home_of(run)
    shutil.rmtree(run)
    if is_uri(home):
        where, path = opened(home)
        with contextlib.suppress(FileNotFoundError):
            where.delete_dir(path)


def first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


REMEDIES = {
    "NO_SUCH_BUCKET": "Make the bucket first, or correct its name.",
    "no such bucket": "Make the bucket first, or correct its name.",
    "not found": "Make the bucket first, or correct its name.",
    "ACCESS_DENIED": "Give the credentials s3:GetObject, PutObject, DeleteObject and ListBucket.",
    "INVALID_ACCESS_KEY_ID": "Correct AWS_ACCESS_KEY_ID, or the profile.",
    "SIGNATURE_DOES_NOT_MATCH": "Correct AWS_SECRET_ACCESS_KEY.",
    "credentials": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the "
    "machine a role.",
    "NETWORK_CONNECTION": "Check AWS_ENDPOINT_URL and the network.",
    "curlCode": "Check AWS_ENDPOINT_URL and the network.",
    "filesystem type": "Use a path, s3://bucket/prefix or gs://bucket/prefix.",
}
"""What to do, by what is in the storage's message."""


def refusal(place: str, error: BaseException) -> BucketError:
    said = str(error)
    fitting = [remedy for sign, remedy in REMEDIES.items() if sign.lower() in said.lower()]
    remedy = fitting[0] if fitting else "Check the URI and the credentials."
    return BucketError(
        f"--out must be storage that takes files, but {place} does not ({first_line(error)}). "
        f"{remedy}"
    )
