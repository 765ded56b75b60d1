"""Object storage (`--out s3://bucket/prefix`, gs://, any that pyarrow knows): URIs, files, errors.

A bucket has no atomic renames, no locks and no files that grow, on which a run's records and
Optuna's journal rest. So a run on a bucket has a working copy on the driver's disk, which is a run
like any other, and `mirror` sends what changes there; only workers write to the bucket directly,
their checkpoints. The working copy's path contains the URI: `uri_of` knows it from any path below.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit, urlunsplit

import pyarrow as pa
from pyarrow import fs

from search.plan import BucketError, RunExists

READ_TRIES = 10


def is_uri(place: str | Path) -> bool:
    """Tell a URI of object storage from a path."""
    return "://" in str(place)


def cache_folder() -> Path:
    """Return the folder of all working copies on this machine."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache).absolute() / "ris-eigengap-search" / "runs"


def split_uri(uri: str) -> tuple[str, str]:
    """Split the URI of a run into `--out` and the run's name."""
    scheme, host, path, query, _ = urlsplit(uri.rstrip("/"))
    folder, _, name = path.rpartition("/")
    return urlunsplit((scheme, host, folder, query, "")), name


def runs_folder(out: str | Path) -> Path:
    """Return the local folder of the runs in `--out`, for a URI that of their working copies."""
    if not is_uri(out):
        return Path(out)
    if urlsplit(str(out)).username is not None:
        raise BucketError(
            "a URI must not hold credentials, since run.json keeps it, but --out does. Put them "
            "in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile."
        )
    return cache_folder() / quote(str(out).rstrip("/"), safe="")


def uri_of(path: Path) -> str:
    """Return the URI of a file or folder in a working copy, or else its absolute path."""
    path = path.absolute()
    if cache_folder() not in path.parents:
        return str(path)
    out, *below = path.relative_to(cache_folder()).parts
    scheme, host, folder, query, _ = urlsplit(unquote(out))
    return urlunsplit((scheme, host, "/".join([folder, *below]), query, ""))


def filesystem_of(place: str) -> tuple[fs.FileSystem, str]:
    """Return the file system of a path or URI and the path on it, or raise BucketError."""
    if not is_uri(place):
        return fs.LocalFileSystem(), place
    if place.startswith("file:"):
        raise BucketError(
            f"a folder is given as a path, but {place} is a URI. Give {urlsplit(place).path}: a "
            "disk has locks and renames, and needs no working copy."
        )
    with bucket_errors(place):
        found: tuple[fs.FileSystem, str] = fs.FileSystem.from_uri(place)
    return found


class RemoteFiles:
    """The files below a URI, by their names relative to it; its methods raise OSError."""

    def __init__(self, uri: str) -> None:
        self._filesystem, self._path = filesystem_of(uri)

    def list(self) -> dict[str, fs.FileInfo]:
        """Return all files with sizes and times; a bucket's clock may know seconds only."""
        selector = fs.FileSelector(self._path, recursive=True, allow_not_found=True)
        found: list[Any] = self._filesystem.get_file_info(selector)
        return {info.path[len(self._path) + 1 :]: info for info in found if info.is_file}

    def read(self, name: str) -> bytes:
        """Return the content of one version of a file that may be replaced meanwhile.

        A stream asks for the size first and reads so many bytes then: of a longer version that
        came in between it returns a part.
        """
        path = f"{self._path}/{name}"
        for _ in range(READ_TRIES):
            with self._filesystem.open_input_stream(path) as stream:
                content: bytes = stream.read()
            if self._filesystem.get_file_info(path).size == len(content):
                return content
        raise OSError(f"{path} is replaced faster than it can be read")

    def write(self, name: str, content: bytes) -> None:
        """Put a file on the bucket, complete or not at all."""
        with self._filesystem.open_output_stream(f"{self._path}/{name}") as stream:
            stream.write(content)

    def remove(self, folder: str = "") -> None:
        """Remove a folder, or everything."""
        with suppress(FileNotFoundError):
            self._filesystem.delete_dir(f"{self._path}/{folder}".rstrip("/"))


@contextmanager
def probe_file(filesystem: fs.FileSystem, path: str) -> Iterator[None]:
    """Keep a file of one byte there while the context lasts, as a proof that it can be written."""
    with filesystem.open_output_stream(path) as stream:
        stream.write(b"0")
    try:
        yield
    finally:
        filesystem.delete_file(path)


def check_new_run(run: Path) -> None:
    """Raise BucketError if the new run's bucket takes no files, RunExists if it has such a run.

    A working copy of a run that has been removed from its bucket is removed here, too.
    """
    uri = uri_of(run)
    if not is_uri(uri):
        return
    out, _ = split_uri(uri)
    filesystem, path = filesystem_of(out)
    with bucket_errors(out):
        with probe_file(filesystem, f"{path}/.probe-{os.getpid()}"):
            pass
        if "run.json" in RemoteFiles(uri).list():
            raise RunExists(
                f"a new run needs a new name, but {uri} exists. Continue it with "
                f"`--resume {uri}`, or choose another `--name`."
            )
    shutil.rmtree(run, ignore_errors=True)


def remove_run(run: Path) -> None:
    """Remove a run from its folder and from its bucket."""
    shutil.rmtree(run)
    if is_uri(uri := uri_of(run)):
        RemoteFiles(uri).remove()


@contextmanager
def downloaded(place: str) -> Iterator[Path]:
    """Give a folder or file as a local path: itself, or a copy while the context lasts."""
    if not is_uri(place):
        yield Path(place)
        return
    filesystem, path = filesystem_of(place)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, path.rsplit("/", 1)[-1])
        if not filesystem.get_file_info(path).is_file:
            copy.mkdir()
        fs.copy_files(path, str(copy), source_filesystem=filesystem)
        yield copy


@contextmanager
def uploaded(place: str) -> Iterator[Path]:
    """Give a local folder to write into: the place itself, or one that is sent there."""
    with tempfile.TemporaryDirectory() as folder:
        # a folder in it, which its maker may replace as a whole
        made = Path(folder, "made") if is_uri(place) else Path(place)
        yield made
        push(made, place)


def push(folder: Path, uri: str | None = None) -> None:
    """Send a folder to a URI, by default that of its working copy; do nothing for a disk."""
    uri = uri or uri_of(folder)
    if is_uri(uri):
        filesystem, path = filesystem_of(uri)
        with bucket_errors(uri):
            fs.copy_files(str(folder), path, destination_filesystem=filesystem)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or else its class."""
    return (str(error).splitlines() or [type(error).__name__])[0]


REMEDIES = {
    r"no.such.bucket|not found": "Make the bucket first, or correct its name.",
    r"access_denied": "Give the credentials s3:GetObject, PutObject, DeleteObject and ListBucket.",
    r"invalid_access_key_id": "Correct AWS_ACCESS_KEY_ID, or the profile.",
    r"signature_does_not_match": "Correct AWS_SECRET_ACCESS_KEY.",
    r"credentials": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give the "
    "machine a role.",
    r"network_connection|curlcode": "Check AWS_ENDPOINT_URL and the network.",
    r"filesystem type": "Use a path, s3://bucket/prefix or gs://bucket/prefix.",
    r"": "Check the URI and the credentials.",
}
"""Remedies by the pattern of the storage's message; the first that fits counts."""


@contextmanager
def bucket_errors(place: str) -> Iterator[None]:
    """Turn what the storage raises in the context into a BucketError with a remedy."""
    try:
        yield
    except (pa.ArrowException, OSError) as error:
        remedy = next(what for sign, what in REMEDIES.items() if re.search(sign, str(error), re.I))
        raise BucketError(
            f"--out must be storage that takes files, but {place} does not "
            f"({first_line(error)}). {remedy}"
        ) from None
