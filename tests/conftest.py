"""Fixtures that all tests share: one Ray to connect to, one real run; and how tests are divided.

Files with tests that use Ray run one after the other on one of pytest's processes, so that they
share a Ray and do not compete for the machine's cores; every other file is one unit of work.
"""

import os
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

# before torch loads OpenMP, and for all processes that tests start: a thread that waits for
# another gives its core away, since pytest's other process has use for it
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch
from xdist.scheduler import LoadFileScheduling

from search.plan.environment import set_ray_environment
from tests.commands import command, free_port

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

set_ray_environment()
torch.set_num_threads(1)  # the matrices are small, and other processes share the cores


class OneProcessForRay(LoadFileScheduling):
    """Sends every test file to one process, those that use Ray all to the same."""

    def _split_scope(self, nodeid: str) -> str:
        file = str(super()._split_scope(nodeid))
        return "ray" if uses_ray(file) else file


@cache
def uses_ray(file: str) -> bool:
    """Return whether a test file, relative to the root, has a test marked `ray`."""
    return "mark.ray" in Path(__file__).parents[1].joinpath(file).read_text()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling:
    """Divide the tests among pytest's processes; slow tests seldom use the shared Ray."""
    divide = OneProcessForRay if "not slow" in config.option.markexpr else LoadFileScheduling
    return divide(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that use Ray, which together take longest."""
    items.sort(key=lambda item: uses_ray(item.nodeid.partition("::")[0]), reverse=True)


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator["Cluster"]:
    """The Ray of this pytest process: a head with two CPUs, its dashboard at `webui_url`."""
    from ray._private.authentication.authentication_token_setup import (
        ensure_token_if_auth_enabled,
    )
    from ray.cluster_utils import Cluster

    ensure_token_if_auth_enabled(create_token_if_missing=True)
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            "num_cpus": 2,
            "include_dashboard": True,
            "dashboard_port": free_port(),
            "dashboard_agent_listen_port": free_port(),
        },
    )
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="session")
def address(ray_cluster: "Cluster") -> str:
    """Return the value of `--address` for the shared Ray."""
    return str(ray_cluster.address)


@pytest.fixture(scope="module")
def connected(address: str) -> Iterator[None]:
    """Connect this process to the shared Ray while a module's tests run."""
    from search.cluster import connect
    from search.plan import SearchConfig

    with connect(SearchConfig("smoke", 1, "connected", address=address)):
        yield


@pytest.fixture
def local_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Run trials and tasks in this process instead of on a Ray."""
    from tests.local_ray import install

    install(monkeypatch)


@pytest.fixture(scope="session")
def smoke(
    tmp_path_factory: pytest.TempPathFactory, address: str
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A real run on the shared Ray, not to be changed: its folder, and what was printed."""
    out = tmp_path_factory.mktemp("runs")
    where = ("--address", address, "--out", str(out), "--name", "smoke")
    return out / "smoke", command("tests.small_smoke", "--preset", "smoke", *where)
