"""Cluster files: what Ray's own loaders accept, and the mistakes that they let through.

A lint beyond Ray's validation, which misses types with min > max, paths that are not there and
all of `node_config`. The RayJob is read by the code with which Ray's autoscaler reads it.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr as autoscaling_of,
)
from ray.autoscaler._private.util import prepare_config, validate_config

from search.config import SearchConfig
from search.preflight import Cluster, Node, allot

ROOT = Path(__file__).parents[1]
LAUNCHED = ("cluster.yaml", "deploy/gcp.yaml", "deploy/onpremise.yaml")
RAYJOB = "deploy/rayjob.yaml"
TOKEN = "~/.ray/auth_token"
SECRET = re.compile(
    r"AKIA[0-9A-Z]{16}|-----BEGIN|aws_secret_access_key|(password|secret|token)\s*[:=]\s*[\"']?\w{12,}",
    re.IGNORECASE,
)


def loaded(name: str) -> dict[str, Any]:
    return yaml.safe_load((ROOT / name).read_text())


def pod(group: dict[str, Any]) -> dict[str, Any]:
    (container,) = group["template"]["spec"]["containers"]
    return container


def job_cluster() -> dict[str, Any]:
    return loaded(RAYJOB)["spec"]["rayClusterSpec"]


def images(name: str) -> set[str]:
    if name == RAYJOB:
        groups = [job_cluster()["headGroupSpec"], *job_cluster()["workerGroupSpecs"]]
        return {pod(group)["image"] for group in groups}
    docker = loaded(name)["docker"]
    return {docker["head_image"], docker["worker_image"]}


def workers(name: str) -> dict[str, dict[str, float]]:
    """Resources of each type of worker, as Ray understands the file."""
    if name == RAYJOB:
        named = {"metadata": {"name": "x", "namespace": "default"}, "spec": job_cluster()}
        config = autoscaling_of(named)
        validate_config(config)
    else:
        config = prepare_config(loaded(name))
    head = config["head_node_type"]
    return {k: v["resources"] for k, v in config["available_node_types"].items() if k != head}


@pytest.mark.parametrize("name", LAUNCHED)
def test_ray_accepts_the_file(name):
    prepared = prepare_config(loaded(name))
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]


@pytest.mark.parametrize("name", [*LAUNCHED, RAYJOB])
def test_the_images_are_the_pinned_ray_and_one_python(name):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = [d for d in project["dependencies"] if d.startswith("ray")]
    version = pin.split("==")[1].removesuffix(".*")
    tags = [image.partition("rayproject/ray:")[2] for image in images(name)]
    assert all(tag.startswith(f"{version}.") for tag in tags), tags
    assert len({tag.rpartition("-")[0] for tag in tags}) == 1, tags


def test_the_job_names_the_ray_of_its_images():
    tags = {image.partition(":")[2].partition("-")[0] for image in images(RAYJOB)}
    assert tags == {job_cluster()["rayVersion"]}


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/gcp.yaml"])
def test_every_node_type_can_exist_and_the_head_takes_no_trials(name):
    cluster = loaded(name)
    types = cluster["available_node_types"]
    for kind, node in types.items():
        assert node.get("min_workers", 0) <= node.get("max_workers", cluster["max_workers"]), kind
        assert node.get("max_workers", 0) <= cluster["max_workers"], kind
    assert types[cluster["head_node_type"]]["resources"] == {"CPU": 0}


def test_the_machines_that_stand_here_are_as_many_as_named_and_the_head_takes_no_trials():
    cluster = loaded("deploy/onpremise.yaml")
    assert cluster["min_workers"] <= cluster["max_workers"]
    assert cluster["max_workers"] == len(cluster["provider"]["worker_ips"])
    assert "--num-cpus=0 --num-gpus=0" in cluster["head_start_ray_commands"][-1]


def test_the_job_has_groups_that_can_exist_and_a_head_that_takes_no_trials():
    assert job_cluster()["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    for group in job_cluster()["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_the_job_has_what_its_definition_requires():
    job = loaded(RAYJOB)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    assert re.fullmatch(r"[a-z]([-a-z0-9]{0,45}[a-z0-9])?", job["metadata"]["name"])
    assert job["spec"]["entrypoint"].startswith("python -m search.run")
    assert isinstance(yaml.safe_load(job["spec"]["runtimeEnvYAML"]), dict)
    for group in (job_cluster()["headGroupSpec"], *job_cluster()["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        resources = pod(group)["resources"]
        assert resources["requests"] == resources["limits"]  # else the pod may be put out


def test_what_the_job_installs_is_what_the_project_pins():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = yaml.safe_load(loaded(RAYJOB)["spec"]["runtimeEnvYAML"])["pip"]
    assert set(asked) <= set(project["dependencies"])


@pytest.mark.parametrize("name", LAUNCHED)
def test_what_is_mounted_exists(name):
    for source in loaded(name)["file_mounts"].values():
        assert source == TOKEN or (ROOT / source).exists(), source


@pytest.mark.parametrize("name", LAUNCHED)
def test_what_is_installed_is_what_is_mounted(name):
    cluster = loaded(name)
    (command,) = cluster["setup_commands"]
    assert command.removeprefix("pip install -e ") in cluster["file_mounts"]


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/gcp.yaml", RAYJOB])
def test_a_worker_holds_a_trial_of_the_full_preset(name):
    plan = SearchConfig("full", 64, "full", address="auto")
    for resources in workers(name).values():
        node = Node(resources["CPU"], resources["GPU"])
        there = allot(plan, Cluster((node,)))  # refuses a machine that holds none
        assert there.concurrent >= 4
        assert there.gpus > 0


@pytest.mark.parametrize("name", [*LAUNCHED, RAYJOB])
def test_no_secret_is_in_the_file_and_every_node_wants_the_token(name):
    text = (ROOT / name).read_text()
    assert not SECRET.search(text)
    if name == RAYJOB:
        assert job_cluster()["authOptions"] == {"mode": "token"}
        return
    for when in ("head", "worker"):
        assert "RAY_AUTH_MODE=token ray start" in loaded(name)[f"{when}_start_ray_commands"][-1]
    assert loaded(name)["file_mounts"]["/home/ray/.ray/auth_token"] == TOKEN


@pytest.mark.parametrize(
    "leak",
    ["aws_secret_access_key: x", "key: AKIAABCDEFGHIJKLMNOP", "token: 0123456789abcdef"],
)
def test_a_secret_would_be_seen(leak):
    assert SECRET.search(leak)


@pytest.mark.parametrize("name", LAUNCHED)
def test_every_choice_has_its_reason_beside_it(name):
    """Numbers, switches and machines are choices; each has a comment on its line or above it."""
    chosen = re.compile(
        r"^\s*(\w*workers|upscaling_speed|idle_timeout_minutes|InstanceType|machineType|"
        r"resources|VolumeSize|diskSizeGb|cache_stopped_nodes|InstanceMarketOptions|"
        r"provisioningModel|IamInstanceProfile|rsync_exclude|setup_commands):"
    )
    lines = (ROOT / name).read_text().splitlines()
    for above, line in zip(["", *lines], lines, strict=False):
        if chosen.match(line) and not line.strip().startswith("max_workers"):
            assert "#" in line or above.strip().startswith("#"), line
