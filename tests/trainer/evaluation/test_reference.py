"""The margin over LMMSE-MUSIC: paired by scene, at every point, marked only beyond chance."""

import dataclasses

import numpy as np
import pytest
import torch

from trainer.config import EvaluationConfig, SceneConfig, TrainConfig
from trainer.covariance import lmmse, sample_covariance
from trainer.evaluation import reference
from trainer.evaluation.conditions import Conditions
from trainer.evaluation.protocol import evaluate_baselines, evaluate_network
from trainer.evaluation.reference import margin_over_reference, summarise_margin

SCENE = SceneConfig(num_horizontal=4, num_vertical=3, num_antennas=6, num_snapshots=8)
CONDITIONS = Conditions(SCENE, 5, (-10.0, 0.0, 20.0), 64)


class Classical(torch.nn.Module):
    """LMMSE-MUSIC as a network."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, scenes):
        return sample_covariance(lmmse(scenes))


class Blind(Classical):
    """A network that takes the first snapshot for all of them."""

    def forward(self, scenes):
        first = scenes.snapshots[:, :1].expand_as(scenes.snapshots)
        return super().forward(dataclasses.replace(scenes, snapshots=first))


@pytest.fixture
def config():
    evaluation = EvaluationConfig(
        seed=5, test_seed=6, report_snr_db=(0.0, 20.0), objective_snr_db=(0.0,), num_scenes=24
    )
    return TrainConfig(scene=SCENE, evaluation=evaluation)


def test_the_reference_is_its_own_equal(config):
    margin = margin_over_reference(Classical(), config)
    assert (margin.above, margin.points, margin.scenes) == (0, 4, 24)
    assert margin.difference == 0
    assert margin.difference_low < 0 < margin.difference_high


def test_the_difference_is_that_of_the_rows_on_the_same_scenes(config):
    margin = margin_over_reference(Blind(), config)
    same = dataclasses.replace(config.evaluation, test_seed=5, seed=6, num_test_scenes=24)
    on_these = dataclasses.replace(config, evaluation=same)
    (classical,) = evaluate_baselines(on_these, ["lmmse_music"])
    rows = zip(evaluate_network(Blind(), on_these).rows, classical.rows, strict=True)
    found = {
        (one.snr_db, one.num_sources): one.capped_error - other.capped_error for one, other in rows
    }
    at = margin.snr_db, margin.num_sources
    assert margin.difference == pytest.approx(found[at], abs=1e-12)
    assert margin.above >= 1
    assert margin.difference_low > 0


def test_the_named_point_is_that_where_the_network_is_most_surely_above():
    differences = np.full((6, 64), -0.1)
    differences[3] = 0.3
    differences[5] = np.tile([1.0, -0.2], 32)  # larger in the mean, but less sure
    margin = summarise_margin(differences.ravel(), CONDITIONS)
    assert (margin.snr_db, margin.num_sources) == CONDITIONS.points()[3]
    assert (margin.above, margin.points) == (2, 6)


@pytest.mark.slow
def test_a_trial_that_is_equal_everywhere_is_marked_in_one_of_forty_at_most():
    rng = np.random.default_rng(0)
    laws = rng.normal(0, 0.2, (150, 6, 64)), np.where(rng.random((150, 6, 64)) < 0.1, -0.45, 0.05)
    marked = [
        summarise_margin(trial.ravel(), CONDITIONS).above > 0
        for law in laws
        for trial in law.clip(-1, 1)
    ]
    # 300 trials: .025 and three standard errors
    assert np.mean(marked) <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 300)
    assert reference.FALSE_MARKS == 0.025
