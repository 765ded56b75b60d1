"""A head that has gone is told in one sentence, before a search and in the middle of one."""

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ray._private import services

from search.cluster.connection import start_ray
from search.plan.errors import Refused
from tests.commands import free_port

WATCHING = """
import socket, subprocess, threading
from search.cluster import connection

connection.WATCH_SECONDS = 0.05
head = socket.create_server(("127.0.0.1", 0))
print(subprocess.Popen(["sleep", "600"]).pid, flush=True)
left = threading.Event()
head_address = "127.0.0.1:%d" % head.getsockname()[1]
threading.Thread(target=connection.watch_head, args=(head_address, left), daemon=True).start()
left.wait(0.5)
print("watched", flush=True)
head.close()
left.wait(60)
"""


def test_an_address_file_of_a_head_that_has_gone_is_refused_within_seconds(monkeypatch, tmp_path):
    monkeypatch.setattr(services, "find_gcs_addresses", set)  # no other Ray on this machine
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    tmp_path.joinpath("ray").mkdir()
    tmp_path.joinpath("ray", "ray_current_cluster").write_text(f"127.0.0.1:{free_port()}")
    began = time.monotonic()
    with pytest.raises(Refused, match="must name a running Ray cluster, but nothing listens at"):
        start_ray({"address": "auto"})
    assert time.monotonic() - began < 10


def test_a_driver_whose_head_has_gone_ends_with_a_sentence_and_takes_its_processes_along():
    driver = [sys.executable, "-c", WATCHING]
    done = subprocess.run(driver, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert re.search(r"the head .* has gone, but nothing is lost: .*--resume", done.stderr)
    child, watched = done.stdout.split()
    assert watched == "watched"
    assert not is_running(int(child))


def is_running(pid: int) -> bool:
    """Return whether a process is there and is not a zombie that nobody has waited for."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
