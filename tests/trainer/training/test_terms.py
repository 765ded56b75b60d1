"""The eigengap term on held-out scenes is the one that training minimises."""

from dataclasses import replace

import pytest

from trainer.config import TrainConfig
from trainer.evaluation import common_scenes, held_out_conditions
from trainer.networks.registry import build_network
from trainer.training.terms import hinge_rows, loss_terms


def test_the_hinge_on_held_out_scenes_is_the_one_that_training_weighs():
    own = {"eigengap.weight": 0.1, "eigengap.definition": "gap", "eigengap.margin": 0.2}
    scenes = {"evaluation.report_snr_db": [0.0], "evaluation.num_test_scenes": 16}
    config = TrainConfig.from_params(own | scenes | {"network.width": 8})
    network = build_network(config)
    for row in hinge_rows(network, config, 16):
        count = int(row["num_sources"])
        seen = common_scenes(held_out_conditions(config, "cpu"), 0.0, count, range(16))
        term = loss_terms(network(seen), seen, config).values["eigengap"]
        assert row["hinge"] == pytest.approx(float(term.detach()), rel=1e-5)  # float32
        assert 0 <= row["hinge_active"] <= 1
    greedy = replace(config, eigengap=replace(config.eigengap, margin=1.0))
    assert [row["hinge_active"] for row in hinge_rows(network, greedy, 16)] == [1.0, 1.0]
