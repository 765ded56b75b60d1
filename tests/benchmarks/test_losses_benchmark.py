"""Laws of losses that are only benchmarked: what each is least at, and that all can be used."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from losses_terms import HINGES, Predicted, terms_of, true_map

from trainer.config import NetworkConfig, SceneConfig, TrainConfig
from trainer.covariance.covariance import normalise, true_factor
from trainer.covariance.dictionary import PLANE_PHASE, POINTS_PER_BEAM
from trainer.networks.registry import build_network
from trainer.scenes.grid import search_grid
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import simulate

SCENE = SceneConfig(num_horizontal=4, num_vertical=4, num_antennas=6, num_snapshots=5)
CONFIG = TrainConfig(scene=SCENE, network=NetworkConfig(kind="unrolled", width=4, stages=1))
BATCH = 6


def scenes_of(scene: SceneConfig = SCENE, batch: int = BATCH) -> Scenes:
    generator = torch.Generator().manual_seed(0)
    return simulate(
        scene, batch, snr_db=(-5.0, 5.0), generator=generator, device="cpu", dtype=torch.complex64
    )


def mixed(scenes: Scenes, share: float) -> Predicted:
    """The true R, with a share of a white one."""
    truth = true_factor(scenes)
    white = torch.eye(truth.shape[1]) / truth.shape[1]
    matrix = (1 - share) * truth @ truth.mH + share * white
    return Predicted(torch.empty(0), normalise(matrix=matrix, eps_psd=0.0))


def test_the_true_map_has_the_true_powers_at_the_true_places() -> None:
    scenes = scenes_of()
    sources = scenes.sources
    target = true_map(CONFIG, scenes)
    grid = search_grid(SCENE, torch.float32, "cpu", POINTS_PER_BEAM, PLANE_PHASE)
    shares = sources.power / sources.power.sum(-1, keepdim=True)
    assert (target >= 0).all()
    torch.testing.assert_close(target.sum(-1), torch.ones(BATCH))
    for on_grid, place in (
        (grid.points[:, 0].sin(), sources.azimuth.sin()),
        (grid.points[:, 1].sin(), sources.elevation.sin()),
        (grid.points[:, 2], 1 / sources.range_m),
    ):
        # single precision
        torch.testing.assert_close(
            target @ on_grid, (shares * place).sum(-1), rtol=1e-4, atol=1e-5
        )


def test_unseen_snapshots_are_shortest_to_write_under_the_truth() -> None:
    scenes = scenes_of()
    cost = [terms_of(CONFIG)["unseen"](mixed(scenes, share), scenes) for share in (0.0, 0.1, 0.3)]
    torch.testing.assert_close(cost[0], torch.zeros(BATCH), rtol=0, atol=1e-5)
    assert (cost[1] > 1e-4).all()
    assert (cost[2] > cost[1]).all()


def test_many_snapshots_say_what_is_expected_of_unseen_ones() -> None:
    scene = replace(SCENE, num_snapshots=20_000)
    scenes, config = scenes_of(scene, batch=2), replace(CONFIG, scene=scene)
    terms, seen = terms_of(config), mixed(scenes, 1.0)
    observed, expected = (terms[name](seen, scenes) for name in ("likelihood", "unseen"))
    # five standard errors: a snapshot's part, yᴴ (C⁻¹ - C_true⁻¹) y / M, has a spread below 1
    assert ((observed - expected).abs() < 5 / 20_000**0.5).all()
    assert (expected > 2 * 5 / 20_000**0.5).all()


@pytest.mark.parametrize("name", ["nmse", *HINGES, "map", "likelihood", "unseen"])
def test_every_term_is_finite_and_moves_a_network(name: str) -> None:
    torch.manual_seed(0)
    network, scenes = build_network(CONFIG), scenes_of()
    value = terms_of(CONFIG)[name](Predicted.by(network, scenes), scenes)
    assert value.shape == (BATCH,)
    assert torch.isfinite(value).all()
    value.mean().backward()
    slopes = [p.grad for p in network.parameters() if p.grad is not None]
    assert all(torch.isfinite(slope).all() for slope in slopes)
    assert any((slope != 0).any() for slope in slopes)
