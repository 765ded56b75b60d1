"""A real S3 server on loopback: moto's, in this process, on a port of its own. What it holds
outlives its end, so that it can die and come back."""

import os
import shutil
import urllib.request
from functools import cache
from pathlib import Path

from moto.moto_server.threaded_moto_server import ThreadedMotoServer
from pyarrow import fs

OUT = "s3://results/searches"


class Server:
    """An S3 server that can die and come back with all it had."""

    def __init__(self) -> None:
        self.host, self.port = "127.0.0.1", 0
        self.come_back()
        self.host, self.port = self.running.get_host_and_port()
        self.url = f"http://{self.host}:{self.port}"

    def die(self) -> None:
        self.running.stop()
        self.alive = False

    def come_back(self) -> None:
        self.running = ThreadedMotoServer(self.host, self.port, verbose=False)
        self.running.start()
        self.alive = True

    def tell(self, what: str, body: bytes = b"") -> None:
        asked = urllib.request.Request(f"{self.url}/moto-api/{what}", body, method="POST")
        asked.add_header("Content-Type", "text/plain")
        urllib.request.urlopen(asked, timeout=10).close()


@cache
def one_server() -> Server:
    """The server of this process, since one takes half a second to stop."""
    return Server()


def served(monkeypatch, tmp_path):
    """For a fixture `server`: one with a bucket, credentials for it, and no working copy."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    server = one_server()
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    maker, name = fs.FileSystem.from_uri("s3://results?allow_bucket_creation=true")
    maker.create_dir(name)
    yield server
    if not server.alive:
        server.come_back()
    server.tell("reset")


def storage() -> fs.FileSystem:
    """The server, as pyarrow sees it."""
    return fs.FileSystem.from_uri("s3://results")[0]


def held(prefix: str = "results/searches") -> set[str]:
    """Names of everything on the bucket below a prefix."""
    selector = fs.FileSelector(prefix, recursive=True, allow_not_found=True)
    found = storage().get_file_info(selector)
    return {info.path.removeprefix(f"{prefix}/") for info in found if info.is_file}


def elsewhere(run: Path) -> None:
    """As if this were another machine: it has no working copy."""
    shutil.rmtree(run)
