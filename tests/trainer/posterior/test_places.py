"""The law of places: a density, and that of simulated scenes."""

import pytest
import torch

from trainer.config import ConfigError, SceneConfig
from trainer.posterior import law_of_places
from trainer.posterior.places import cosines
from trainer.scenes import simulate

SCENE = SceneConfig(num_antennas=1, num_snapshots=1)
LAW = law_of_places(SCENE)


def uniform_places(size: int, count: int) -> tuple[torch.Tensor, float]:
    """Return places uniform in the box, [S, K, 3], and the box's volume."""
    unit = torch.rand(size, count, 3, generator=torch.Generator().manual_seed(3))
    width = LAW.upper - LAW.lower
    return LAW.lower + width * unit, float(width.prod()) ** count


@pytest.mark.parametrize("count", [1, 2])
def test_the_density_integrates_to_one(count):
    places, volume = uniform_places(200_000, count)
    terms = LAW.log_density(places).exp().double() * volume
    error = float(terms.std()) / len(terms) ** 0.5
    assert float(terms.mean()) == pytest.approx(1, abs=4 * error)
    assert error < 0.01


def test_simulated_scenes_follow_it():
    """Means of what tells laws apart: the pair's separation, its spread, the ranges."""
    scenes = simulate(
        SCENE,
        60_000,
        snr_db=0.0,
        num_sources=2,
        generator=torch.Generator().manual_seed(4),
        device="cpu",
    )
    true = scenes.sources
    drawn = torch.stack([true.azimuth, true.elevation, 1 / true.range_m], dim=-1)
    places, volume = uniform_places(200_000, 2)
    weights = LAW.log_density(places).exp().double() * volume

    def measures(x: torch.Tensor) -> torch.Tensor:
        u, v = cosines(x).unbind(-1)
        columns = [
            (u[:, 0] - u[:, 1]) ** 2,
            (v[:, 0] - v[:, 1]) ** 2,
            (u**2).sum(-1),
            (v**2).sum(-1),
            (u**2 * v**2).sum(-1),
            x[:, 0, 2] * x[:, 1, 2],
        ]
        return torch.stack(columns, dim=-1).double()

    terms = weights.unsqueeze(-1) * measures(places)
    own = measures(drawn)
    error = (own.var(0) / len(own) + terms.var(0) / len(terms)).sqrt()
    assert bool(((own.mean(0) - terms.mean(0)).abs() < 4 * error).all())


def test_the_free_share_is_the_chance_that_a_second_direction_is_far_enough():
    places, _ = uniform_places(40_000, 2)
    fixed = torch.tensor([[0.1, 0.2, 1.0], [1.0, -0.5, 1.0]])
    for place in fixed:
        offset = (cosines(places[:, 0]) - cosines(place)) * 3  # beams of 2/6
        far = (offset.square().sum(-1) >= 1).double()
        share = float(LAW.free_share(place))
        assert share == pytest.approx(float(far.mean()), abs=4 * float(far.std()) / 200 + 0.003)


def test_places_outside_and_pairs_too_close_have_no_density():
    outside = torch.tensor([[[1.2, 0.0, 1.0]], [[0.0, 0.6, 1.0]], [[0.0, 0.0, 2.1]]])
    close = torch.tensor([[[0.0, 0.0, 1.0], [0.1, 0.1, 0.5]]])
    assert bool(torch.isneginf(LAW.log_density(outside)).all())
    assert bool(torch.isneginf(LAW.log_density(close)).all())


@pytest.mark.parametrize("given", [{"power_spread_db": 3.0}, {"source_correlation": 0.5}])
def test_unequal_or_correlated_sources_are_refused(given):
    with pytest.raises(ConfigError, match="equal, uncorrelated"):
        law_of_places(SceneConfig(**given))
