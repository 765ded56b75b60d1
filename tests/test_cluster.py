"""`cluster.yaml` is what Ray's own loader accepts, and pins what the project pins."""

import tomllib
from pathlib import Path

import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[1]
CLUSTER = yaml.safe_load((ROOT / "cluster.yaml").read_text())


def test_ray_accepts_the_cluster_file():
    prepared = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text()))
    validate_config(prepared)
    assert prepared["head_node_type"] in prepared["available_node_types"]


def test_the_image_is_the_pinned_ray():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (pin,) = [d for d in project["dependencies"] if d.startswith("ray")]
    version = pin.split("==")[1].removesuffix(".*")
    assert CLUSTER["docker"]["image"].startswith(f"rayproject/ray:{version}.")


def test_every_node_type_can_exist_and_the_head_takes_no_trials():
    types = CLUSTER["available_node_types"]
    for name, node in types.items():
        assert node.get("min_workers", 0) <= node.get("max_workers", CLUSTER["max_workers"]), name
    assert types[CLUSTER["head_node_type"]]["resources"] == {"CPU": 0}


def test_what_is_mounted_exists():
    for source in CLUSTER["file_mounts"].values():
        assert (ROOT / source).exists()
