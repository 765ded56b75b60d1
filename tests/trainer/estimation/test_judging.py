"""Estimates judged by the likelihood: where they move, and where they stay."""

from dataclasses import replace

import pytest
import torch

from trainer.config import SceneConfig
from trainer.covariance import whiten
from trainer.estimation.estimates import ORIGINS, Estimates
from trainer.estimation.fisher_scoring import judge_by_likelihood, score
from trainer.estimation.likelihood import Likelihood
from trainer.estimation.maximum_likelihood import GridLikelihood, sml
from trainer.evaluation.metrics import capped_error, match
from trainer.scenes.grid import search_grid
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import simulate

SCENE = SceneConfig(num_horizontal=6, num_vertical=6, num_antennas=10, num_snapshots=16)
SEARCH = search_grid(SCENE)


def scenes_of(snr_db: float, batch: int, count: int | None = None) -> Scenes:
    generator = torch.Generator().manual_seed(0)
    return simulate(
        SCENE, batch, snr_db=snr_db, generator=generator, device="cpu", num_sources=count
    )


def anywhere(scenes: Scenes) -> Estimates:
    """Return estimates that have nothing to do with the sources."""
    generator = torch.Generator().manual_seed(1)
    truth = scenes.sources
    share = torch.rand(*truth.active.shape, 3, generator=generator)
    place = SEARCH.lower + share * (SEARCH.upper - SEARCH.lower)
    azimuth, elevation, inverse_range = place.unbind(-1)
    return Estimates(azimuth, elevation, 1 / inverse_range, truth.active, truth.active)


def negative_log_likelihood(scenes: Scenes, estimates: Estimates) -> torch.Tensor:
    data = whiten(scenes).to(torch.complex128)
    places = estimates.positions.double()
    return score(data, places, estimates.active, SEARCH, steps=0)[0].value


@pytest.mark.parametrize("count", [1, 2])
def test_from_anywhere_strong_sources_are_found_as_by_maximum_likelihood(count):
    """One source always; one of two is searched given a wrong other, as in sml's first round."""
    scenes = scenes_of(20.0, 12, count)
    start = anywhere(scenes)
    judged = judge_by_likelihood(scenes, start, SEARCH)
    found, best, wrong = (
        capped_error(match(each, scenes.sources))
        for each in (judged, sml(scenes, scenes.sources.num_sources, SEARCH), start)
    )
    assert float(wrong.mean()) > 0.8
    assert float((found < best + 0.05).double().mean()) >= (1.0 if count == 1 else 0.75)
    assert (judged.origin == ORIGINS.index("search")).double().mean() > 0.9


def test_below_threshold_places_stay():
    scenes = scenes_of(-25.0, 24)
    start = anywhere(scenes)
    judged = judge_by_likelihood(scenes, start, SEARCH)
    stays = judged.origin == ORIGINS.index("covariance")
    assert stays.double().mean() > 0.9
    assert torch.equal(judged.azimuth[stays], start.azimuth[stays])
    assert torch.equal(judged.range_m[stays], start.range_m[stays])


def test_no_move_lowers_the_likelihood():
    """Up to the rounding of places to single precision."""
    scenes = scenes_of(4.0, 16)
    start = anywhere(scenes)
    judged = judge_by_likelihood(scenes, start, SEARCH)
    moved = judged.origin != ORIGINS.index("covariance")
    assert moved.any()
    before, after = (negative_log_likelihood(scenes, each)[moved] for each in (start, judged))
    assert (after < before + 0.5).all()  # powers and noise are of least squares in both


def test_a_batch_is_judged_as_its_scenes_alone():
    scenes = scenes_of(3.0, 3)
    truth = scenes.sources  # from far off, few steps end where rounding sends them
    start = Estimates(
        truth.azimuth + 0.03, truth.elevation, truth.range_m, truth.active, truth.active
    )
    together = judge_by_likelihood(scenes, start, SEARCH)
    for i in range(3):
        one = Estimates(
            *(getattr(start, name)[i : i + 1] for name in ("azimuth", "elevation", "range_m")),
            start.resolved[i : i + 1],
            start.active[i : i + 1],
        )
        alone = judge_by_likelihood(scenes.take(slice(i, i + 1)), one, SEARCH)
        assert int(alone.origin) == int(together.origin[i])
        torch.testing.assert_close(alone.azimuth[0], together.azimuth[i], rtol=0, atol=1e-5)


def test_silent_scenes_do_not_move():
    scenes = scenes_of(0.0, 3)
    silent = replace(scenes, snapshots=torch.zeros_like(scenes.snapshots))
    start = anywhere(scenes)
    judged = judge_by_likelihood(silent, start, SEARCH)
    assert torch.equal(judged.azimuth, start.azimuth)
    assert not judged.resolved.any()
    assert (judged.origin == ORIGINS.index("covariance")).all()


def test_the_gain_of_a_source_is_that_of_the_likelihood():
    """With no other source, the best grid point's gain is V of noise alone minus V there."""
    scenes = scenes_of(5.0, 4, 1)
    data = whiten(scenes).to(torch.complex128)
    nothing = torch.zeros(4, 1, dtype=torch.bool)
    unknowns = torch.zeros(4, 5, dtype=torch.float64)
    unknowns[:, 2] = 1.0
    none = Likelihood(data, SEARCH, nothing)
    level = data.snapshots.abs().square().mean((1, 2)).log()
    unknowns[:, -1] = level
    grid = GridLikelihood(data, SEARCH)
    gain = grid.gain(none, unknowns)
    places, ratio, noise = grid.candidates(none, unknowns)
    there = unknowns.clone()
    there[:, :3] = places[:, 0]
    there[:, 4] = noise[:, 0].log()
    there[:, 3] = (ratio * noise)[:, 0].log()
    with_one = Likelihood(data, SEARCH, ~nothing).local_model(there).value
    expected = none.local_model(unknowns).value - with_one
    torch.testing.assert_close(gain.double(), expected, rtol=1e-3, atol=1e-2)
