"""A short training beats MUSIC on a back-projection; otherwise no search is worth starting."""

import time
from dataclasses import replace

import numpy as np
import pytest

from trainer.config import NetworkConfig, TrainConfig
from trainer.evaluation.conditions import Conditions, evaluate
from trainer.evaluation.protocol import classical_estimator, network_estimator
from trainer.intervals import paired_difference
from trainer.networks.registry import build_network
from trainer.training.loop import train

SNR_DB = (-10.0, -5.0, 0.0)
HELD_OUT = 9_000_003
MARGIN = 0.08


@pytest.mark.slow
def test_a_short_training_beats_lmmse_music_by_the_margin():
    """Mean success over -10, -5 and 0 dB and K = 1, 2, 64 scenes each, paired by scene."""
    config = TrainConfig(
        network=NetworkConfig(kind="unrolled", width=16, stages=1),
        epochs=1,
        steps_per_epoch=40,
        batch_size=32,
    )
    small = replace(config.evaluation, num_scenes=1, num_test_scenes=1)
    config = replace(config, evaluation=small, device="cpu")
    started = time.process_time()
    *_, last = train(config)
    assert time.process_time() - started < 60
    network = build_network(config)
    network.load_state_dict(last.state.network)
    conditions = Conditions(config.scene, HELD_OUT, SNR_DB, 64)
    means = []
    for estimate in (
        network_estimator(network.eval(), config.scene),
        classical_estimator("lmmse_music", config.scene),
    ):
        scenes = evaluate(estimate, "any", conditions, bound=False).scenes
        assert scenes.success is not None
        means.append(np.bincount(scenes.scene_id, scenes.success) / len(conditions.points()))
    assert paired_difference(*means).low > MARGIN
