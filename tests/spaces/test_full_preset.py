"""The preset for GPUs: what it promises, and that a CPU can take a step with it."""

import pytest
import torch

import spaces
from spaces.presets import FULL_SCENE
from trainer.config import TrainConfig
from trainer.scenes.simulation import simulate
from trainer.training.loop import train


def test_it_is_the_large_scene_with_up_to_five_sources_and_large_batches():
    config = TrainConfig.from_params(dict(spaces.get("full").fixed))
    assert (config.scene.num_horizontal, config.scene.num_vertical) == (12, 12)
    assert config.batch_size >= 256
    scenes = simulate(
        config.scene,
        400,
        snr_db=(config.snr_min_db, config.snr_max_db),
        generator=torch.Generator().manual_seed(0),
        device="cpu",
    )
    assert set(scenes.sources.num_sources.tolist()) == {1, 2, 3, 4, 5}


@pytest.mark.slow
@pytest.mark.parametrize(
    "network",
    [
        {"network.kind": "dictionary"},
        {"network.kind": "unrolled", "network.stages": 2},
        {"network.kind": "factor", "network.rank": 8, "covariance.blend_bound": 0.3},
    ],
    ids=lambda network: network["network.kind"],
)
def test_a_cpu_takes_steps_with_every_kind_of_network(network):
    """Two steps of four scenes, and a report: all numbers finite, no NaN where K = 5."""
    small = {
        "epochs": 1,
        "steps_per_epoch": 2,
        "batch_size": 4,
        "evaluation.num_scenes": 2,
        "evaluation.num_test_scenes": 2,
        "evaluation.report_snr_db": (0.0,),
    }
    (report,) = train(TrainConfig.from_params(FULL_SCENE | network | small | {"device": "cpu"}))
    assert report.step == 2
    assert 0 < report.losses["covariance"] < 10
    assert {row.num_sources for row in report.evaluation} == {1, 2, 3, 4, 5}
