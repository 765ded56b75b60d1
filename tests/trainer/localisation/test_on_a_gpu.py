"""All that a search runs on a GPU beside its steps, on a pretended one: no tensor is left on the
CPU, and what is found is what the CPU finds."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from tests.pretended_gpu import PretendedGpu
from trainer.config import SceneConfig, TrainConfig
from trainer.evaluation import confidence
from trainer.evaluation.conditions import Conditions, evaluate
from trainer.evaluation.limit import limit_of_scenes
from trainer.evaluation.protocol import classical_estimator, evaluate_baselines, validate
from trainer.localisation import localise
from trainer.networks import build_network
from trainer.posterior import sampler
from trainer.scenes import EvalScenes
from trainer.training import train

SCENE = SceneConfig(num_horizontal=4, num_vertical=3, num_antennas=6, num_snapshots=8)
CONFIG = TrainConfig.from_params(
    {
        **{f"scene.{name}": value for name, value in vars(SCENE).items() if value is not None},
        "network.kind": "unrolled",
        "network.stages": 1,
        "network.width": 2,
        "network.depth": 2,
        "epochs": 1,
        "steps_per_epoch": 1,
        "batch_size": 4,
        "eigengap.weight": 0.1,
        "eigengap.definition": "gap",
        "eigengap.margin": 0.5,
        "evaluation.num_scenes": 2,
        "evaluation.num_test_scenes": 2,
        "evaluation.objective_snr_db": [0.0],
        "evaluation.report_snr_db": [0.0],
        "device": "cpu",
    }
)
METHODS = (
    "lmmse_music",
    "pinv_mvdr",
    "exact_beamformer",
    "sparse_music",
    "lmmse_music+scoring",
    "sml",
    "posterior",
)


def errors(method: str, device: str) -> Any:
    """Return the capped errors of a method in scenes of two sources."""
    conditions = Conditions(SCENE, 5, (5.0,), 2, device, num_sources=(2,))
    return evaluate(
        classical_estimator(method, SCENE, device), method, conditions, bound=False
    ).scenes.capped_error


def bound(device: str) -> Any:
    (found,) = evaluate_baselines(CONFIG, ("crb",), device)
    return found.scenes.capped_error


def limit(device: str) -> Any:
    found = limit_of_scenes(SCENE, 7, range(2), snr_db=0.0, num_sources=1, device=device)
    return np.stack([each.error for each in found.values()])


def localised(method: str, device: str) -> Any:
    """Return places, and what goodness of fit says of them."""
    scenes = EvalScenes(SCENE, 11).batch(range(2), snr_db=20.0, num_sources=1)
    found = localise(scenes=scenes, method=method, device=device)
    return np.concatenate([np.nan_to_num(found.azimuth), np.nan_to_num(found.p_value[:, None])], 1)


def validation(device: str) -> Any:
    torch.manual_seed(0)
    network = build_network(CONFIG).to(device)
    return [row.capped_error for row in validate(network, CONFIG).rows]


TASKS = {
    "validation": (validation, ()),
    "bound": (bound, ()),
    **{method: (errors, (method,)) for method in METHODS},
    "limit": (limit, ()),
    "localise by sml, fit": (localised, ("sml",)),
    "localise by posterior, fit": (localised, ("posterior",)),
}
QUICK = ("bound",)


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    """Sample few points: they are compared with themselves."""
    monkeypatch.setattr(sampler, "DRAWS", 128)
    monkeypatch.setattr(sampler, "ROUND_DRAWS", 128)
    monkeypatch.setattr(confidence, "SCENES", confidence.BATCH_SIZE)


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in TASKS]
)
def test_a_gpu_finds_what_the_cpu_finds(name):
    task, args = TASKS[name]
    here = task(*args, "cpu")
    with PretendedGpu() as gpu:
        there = task(*args, "cuda")
    assert gpu.operations
    # parts of another size sum in another order, which may tip the last digits only
    np.testing.assert_allclose(there, here, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_training_on_a_gpu_goes_on_from_its_checkpoint_as_if_it_had_not_stopped():
    scene = replace(SCENE, max_sources=1)
    config = replace(CONFIG, scene=scene, device="cuda", epochs=2)
    with PretendedGpu():
        first = next(train(config))
        (again,) = train(config, resume=first.state)
        _, second = train(config)
    assert again.margin is not None
    assert len(again.evaluation) == 1
    assert again.row() | {"seconds": 0} == second.row() | {"seconds": 0}
