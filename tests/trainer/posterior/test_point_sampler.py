"""Points weighed in all pairs: tables against closed forms, evidence against the prior."""

import pytest
import torch

from trainer.config import SceneConfig
from trainer.posterior import law_of_places
from trainer.posterior.likelihood import ScaleFreeLikelihood, all_pairs
from trainer.posterior.pairs import pair_table, scale_echoes
from trainer.posterior.point_sampler import BLIND_SNR_DB, PointSampler
from trainer.scenes import EvalScenes, Scenes, simulate

SCENE = SceneConfig()
LAW = law_of_places(SCENE)


def scenes_of(snr_db: float, count: int, ids: range = range(3)) -> Scenes:
    return EvalScenes(SCENE, 12).batch(ids, snr_db=snr_db, num_sources=count)


def prior_places(size: int, count: int) -> torch.Tensor:
    small = SceneConfig(num_antennas=1, num_snapshots=1)
    generator = torch.Generator().manual_seed(5)
    sources = simulate(
        small, size, snr_db=0.0, num_sources=count, generator=generator, device="cpu"
    ).sources
    places = torch.stack([sources.azimuth, sources.elevation, 1 / sources.range_m], dim=-1)
    return places[:, :count]


@pytest.mark.parametrize("alike", [True, False], ids=["with themselves", "with others"])
def test_a_table_of_pairs_is_the_likelihood_of_every_pair(alike):
    config = SceneConfig(noise_correlation=0.4)
    scenes = EvalScenes(config, 12).batch(range(3), snr_db=8.0, dtype=torch.complex128)
    scenes.snapshots[0, 2] = 0  # nothing is matched to it, so it has no phase
    likelihood = ScaleFreeLikelihood(scenes)
    points = prior_places(40, 1).squeeze(1).double().expand(3, -1, -1)
    first, second = likelihood.echoes(points), likelihood.echoes(points[:, 7:31])
    second = first if alike else second
    ratio = torch.tensor([0.01, 0.1, 1.0], dtype=torch.float64)
    scaled = scale_echoes(first, ratio)
    table = pair_table(likelihood, scaled, scaled if alike else scale_echoes(second, ratio))
    closed = likelihood.at_ratio(all_pairs(first, second), ratio[:, None, None])
    apart = torch.ones(table.shape[1:], dtype=torch.bool)
    apart &= (points[0].unsqueeze(1) != (points if alike else points[:, 7:31])[0]).any(-1)
    torch.testing.assert_close(table[:, apart], closed[:, apart], rtol=1e-9, atol=1e-9)


def test_the_prior_of_all_pairs_is_that_of_each():
    points = torch.cat([prior_places(30, 1).squeeze(1), torch.tensor([[2.0, 0.0, 1.0]])])[None]
    index = torch.cartesian_prod(torch.arange(31), torch.arange(31))
    each = LAW.log_density(points[0, index]).view(1, 31, 31)
    torch.testing.assert_close(LAW.pair_log_density(points), each)


@pytest.mark.parametrize(
    ("snr_db", "count"),
    [
        (-9.0, 1),
        pytest.param(-12.0, 2, marks=pytest.mark.slow),
        pytest.param(-7.0, 2, marks=pytest.mark.slow),
    ],
)
def test_the_evidence_is_that_of_places_drawn_by_simulation(snr_db, count):
    """log mean likelihood over the prior of places and of ratios."""
    scenes = scenes_of(snr_db, count)
    sampler = PointSampler(scenes, SCENE)
    draws = sampler.sample(count)
    places = prior_places(6000 if snr_db < -10 or count == 1 else 40_000, count)
    nodes = torch.arange(len(BLIND_SNR_DB))
    total = torch.full((3, len(places)), -torch.inf)
    for part in torch.arange(len(places)).split(2000):
        forms = sampler.likelihood.forms(places[part].expand(3, -1, -1, -1))
        values = [
            sampler.likelihood.at_ratio(forms, sampler._ratio(node, count).unsqueeze(-1))
            for node in nodes
        ]
        total[:, part] = torch.stack(values).logsumexp(0) - float(torch.tensor(len(nodes)).log())
    top = total.amax(-1, keepdim=True)
    terms = (total - top).double().exp()
    evidence = terms.mean(-1).log() + top.squeeze(-1)
    error = terms.std(-1) / terms.mean(-1) / len(places) ** 0.5
    assert bool((error < 0.35).all())
    own = 2 / draws.worth.sqrt()
    assert bool(((draws.log_evidence - evidence).abs() < 4 * (error + own)).all())


def test_what_a_scene_gives_depends_on_no_other():
    scenes = scenes_of(3.0, 2)
    whole = PointSampler(scenes, SCENE).sample(2)
    alone = PointSampler(scenes.take(slice(1, 2)), SCENE).sample(2)
    torch.testing.assert_close(whole.places[1:2], alone.places, rtol=0, atol=0.02)
    torch.testing.assert_close(whole.log_evidence[1:2], alone.log_evidence, rtol=0, atol=0.05)


@pytest.mark.parametrize("snr_db", [-15.0, pytest.param(20.0, marks=pytest.mark.slow)])
def test_points_suffice_at_every_snr(snr_db):
    for count in (1, 2):
        draws = PointSampler(scenes_of(snr_db, count), SCENE).sample(count)
        assert float(draws.worth.min()) > 15
        assert bool(torch.isfinite(draws.log_evidence).all())
