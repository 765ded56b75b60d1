"""Fixtures that all tests share: one Ray to connect to, one real run; and how tests are divided.

Tests that start or use Ray run one after the other on one of pytest's processes, so that they
share a Ray and do not compete for the machine's cores; every other file is one unit of work.
"""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from search.plan.environment import set_ray_environment
from tests.commands import command, free_port

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

set_ray_environment()
torch.set_num_threads(1)  # the matrices are small, and other processes share the cores


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Divide the tests into groups for `--dist loadgroup`, the one that takes longest first."""

    def on_shared_ray(item: pytest.Item) -> bool:
        return "ray" in item.keywords and "slow" not in item.keywords

    for item in items:
        group = "ray" if on_shared_ray(item) else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=on_shared_ray, reverse=True)


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
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A real run on a Ray of its own, not to be changed: its folder, and what was printed."""
    out = tmp_path_factory.mktemp("runs")
    done = command("tests.small_smoke", "--preset", "smoke", "--out", str(out), "--name", "smoke")
    return out / "smoke", done
