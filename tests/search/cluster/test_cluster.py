"""Cluster files: what Ray's own loaders accept, and the mistakes that they let through.

A lint beyond Ray's validation, which misses types with min > max, paths that are not there and
all of `node_config`. The RayJob is read by the code with which Ray's autoscaler reads it.
"""

import importlib.metadata
import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr as autoscaling_of,
)
from ray.autoscaler._private.util import prepare_config, validate_config

from search.plan.config import SearchConfig
from search.plan.errors import Refused
from search.plan.options import parser
from search.plan.resources import Cluster, Node, resolve_resources
from search.run import plan_from_flags

ROOT = Path(__file__).parents[3]
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


def installed(name: str) -> list[Requirement]:
    """Return what a file installs beside the project itself."""
    if name == RAYJOB:
        asked = yaml.safe_load(loaded(RAYJOB)["spec"]["runtimeEnvYAML"])["pip"]
    else:
        (command,) = loaded(name)["setup_commands"]
        asked = command.split()[4:]
    return [Requirement(each) for each in asked]


def needed() -> dict[str, Requirement]:
    """Return the requirements of the project, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return {need.name: need for need in map(Requirement, project["dependencies"])}


@pytest.mark.parametrize("name", [*LAUNCHED, RAYJOB])
def test_what_is_installed_is_what_the_project_asks_for_and_one_torch(name):
    for asked in installed(name):
        need = needed()[asked.name].specifier
        (first, *_) = [each.version for each in asked.specifier if each.operator in ("==", ">=")]
        assert asked.specifier == need or first in need, asked
    (torch,) = [each for each in installed(name) if each.name == "torch"]
    assert str(torch.specifier).startswith("=="), "machines come at other times than others"
    assert torch in installed("cluster.yaml")


def test_the_job_lacks_nothing():
    """The job is not installed: what it needs is in the image, which is Ray with all extras, or is
    asked for."""
    image = [Requirement(each) for each in importlib.metadata.requires("ray") or []]
    there = {each.name for each in image if not each.marker or "all" in str(each.marker)}
    asked = {each.name for each in installed(RAYJOB)}
    assert needed().keys() - asked - there == {"ray"}


@pytest.mark.parametrize("name", LAUNCHED)
def test_what_is_mounted_exists(name):
    for source in loaded(name)["file_mounts"].values():
        assert source == TOKEN or (ROOT / source).exists(), source


@pytest.mark.parametrize("name", LAUNCHED)
def test_what_is_installed_is_what_is_mounted(name):
    cluster = loaded(name)
    (command,) = cluster["setup_commands"]
    assert command.split()[:3] == ["pip", "install", "-e"]
    assert command.split()[3] in cluster["file_mounts"]


@pytest.mark.parametrize("name", ["cluster.yaml", "deploy/gcp.yaml", RAYJOB])
def test_a_worker_holds_a_trial_of_the_full_preset(name):
    plan = SearchConfig("full", 64, "full", address="auto")
    for resources in workers(name).values():
        node = Node(resources["CPU"], resources["GPU"])
        there = resolve_resources(plan, Cluster((node,)))  # refuses a machine that holds none
        assert there.concurrent >= 4
        assert there.gpus > 0


def commands() -> list[str]:
    """Every search on a cluster that is to grow, as the documents and the RayJob give it."""
    texts = [(ROOT / name).read_text() for name in ("README.md", "docs/cluster.md")]
    joined = [re.sub(r"\\\n\s*", "", text) for text in texts]
    found = [line for text in joined for line in re.findall(r"python -m search\.run (.*)", text)]
    found.append(loaded(RAYJOB)["spec"]["entrypoint"].removeprefix("python -m search.run "))
    return [line for line in found if "--max-concurrent" in line]


@pytest.mark.parametrize("command", commands())
def test_a_documented_search_trains_on_gpus_though_no_worker_has_come_yet(command):
    plan = plan_from_flags(parser().parse_args(command.replace("s3://", "/").split()))
    head = Node(0, 0)
    there = resolve_resources(plan, Cluster((head,), can_grow=True))
    assert 0 < there.gpus < 1
    assert there.concurrent * there.gpus <= loaded("cluster.yaml")["max_workers"]
    assert resolve_resources(plan, Cluster((head, Node(8, 1)), can_grow=True)) == there


def test_the_documents_have_such_commands():
    assert len(commands()) >= 3


def test_on_a_cluster_without_workers_it_is_not_guessed_whether_they_have_gpus():
    plan = SearchConfig("full", 64, "full", address="auto", max_concurrent=32)
    with pytest.raises(Refused, match=r"--gpus-per-trial was not given\. Give 0\.25"):
        resolve_resources(plan, Cluster((Node(0, 0),), can_grow=True))
    for asked in (0.0, 0.25):
        told = replace(plan, gpus_per_trial=asked)
        assert resolve_resources(told, Cluster((Node(0, 0),), can_grow=True)).gpus == asked


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


OBVIOUS = {
    *("cluster_name", "type", "region", "container_name", "head_node_type", "ssh_user"),
    *("apiVersion", "kind", "name", "groupName", "runtimeEnvYAML", "boot", "autoDelete"),
}
"""Names, and what has no other value: of these a reader asks no reason."""


def unexplained(text: str) -> list[str]:
    """Lines that set something without a comment beside or above it, or on what it is part of;
    what has been explained once, of a head say, is not asked for again."""
    known, parts, found = set(OBVIOUS), [(-1, False)], []
    above = False
    for line in text.splitlines():
        if line.strip().startswith("#"):
            above = True
            continue
        key = re.match(r"(\s*(?:- )?)(?:\{ )?([A-Za-z][\w./-]*):(?:\s|$)", line)
        if key is not None:
            indent = len(key[1])
            while parts[-1][0] >= indent:
                parts.pop()
            explained = " #" in line or above or parts[-1][1] or key[2] in known
            parts.append((indent, explained))
            if explained:
                known.add(key[2])
            elif line.split(" #")[0].rstrip()[-1] not in ":|":
                found.append(line.strip())
        above = False
    return found


@pytest.mark.parametrize("name", [*LAUNCHED, RAYJOB])
def test_every_choice_has_its_reason_beside_it(name):
    assert unexplained((ROOT / name).read_text()) == []


def test_a_choice_without_a_reason_would_be_seen():
    text = (ROOT / "cluster.yaml").read_text()
    bare = re.sub(r"(idle_timeout_minutes: \d+) #.*", r"\1", text)
    assert unexplained(bare) == ["idle_timeout_minutes: 10"]
