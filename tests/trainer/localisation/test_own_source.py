"""An estimate is vouched for only if a source of its own supports it, whoever made it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats

from tests.small_model import SCENE, scenes_of
from trainer.estimation import make_estimates, sml
from trainer.evaluation import near_a_source, place_probability
from trainer.localisation import vouch, vouched
from trainer.localisation.vouching import AMBIGUOUS, FEWER, LEAST_PROBABILITY, UNSEEN
from trainer.scenes import Scenes, respond, search_grid


def vouched_at(scenes: Scenes, places: torch.Tensor):
    """Return what estimates at places [B, 2, 3], resolved and sure of themselves, are worth."""
    every = torch.ones(places.shape[:2], dtype=torch.bool)
    search = search_grid(SCENE, torch.float32)
    found = make_estimates(places.float(), every, every, every, search, 2)
    count = torch.full((len(places),), 2)
    return vouch(scenes, found, count, SCENE, torch.full(every.shape, 0.9))


def places_of(scenes: Scenes) -> torch.Tensor:
    truth = scenes.sources
    return torch.stack([truth.azimuth, truth.elevation, 1 / truth.range_m], dim=-1)


@pytest.mark.parametrize("off_deg", [2.0, 50.0])
def test_one_source_does_not_vouch_for_two_estimates(off_deg):
    """Beside the source or a far ghost of noise: one estimate is supported, the other is not."""
    scenes = scenes_of(count=1, snr_db=10.0, size=4)
    truth = places_of(scenes)[:, :1]
    ghost = truth.clone()
    ghost[..., 0] -= truth[..., 0].sign() * np.radians(off_deg)
    found = vouched_at(scenes, torch.cat([truth, ghost], dim=1))
    kept = np.isfinite(found.confidence)
    assert (kept.sum(-1) <= 1).all()
    assert (found.resolved.sum(-1) <= 1).all()
    # a ghost that climbs to an edge of the region has that reason
    assert (found.reason == FEWER).any() == (off_deg == 2)


def test_two_sources_vouch_for_two_estimates():
    scenes = scenes_of(count=2, snr_db=10.0, size=4)
    found = vouched_at(scenes, places_of(scenes))
    assert FEWER not in found.reason
    assert found.resolved.all()


def test_what_is_not_seen_keeps_that_reason():
    scenes = scenes_of(count=0, size=8)
    found = vouched_at(scenes, torch.tensor([[[0.3, 0.1, 1.0], [-0.3, 0.0, 1.0]]]).repeat(8, 1, 1))
    assert (found.reason == UNSEEN).sum() >= 12


@pytest.mark.parametrize("change", [{"num_snapshots": 1}, {"num_antennas": 2}], ids=str)
def test_places_are_right_as_often_as_they_are_probable(change):
    """A posterior is calibrated: P is the share of right places in the mean, however few snapshots
    or antennas there are; of those beyond the least P, 95 % are right. Bounds: 4 standard errors,
    and .05 for Laplace's approximation."""
    scene, every = replace(SCENE, **change), torch.ones(256, dtype=torch.long)
    law = scenes_of(scene, snr_db=8.0, size=len(every))
    search = search_grid(scene)
    found = sml(law, every, search)
    probability = place_probability(law, found, search)[found.resolved]
    right = near_a_source(found, law)[found.resolved].double()
    off = probability - right
    assert 0.7 < right.mean() < 0.95
    assert off.mean().abs() < 4 * off.std() / len(off) ** 0.5 + 0.05
    sure = right[probability >= LEAST_PROBABILITY]
    assert len(sure) > 50
    wrong = int((1 - sure).sum())
    assert stats.binomtest(wrong, len(sure), 0.05, alternative="greater").pvalue > 1e-4


def test_two_places_that_explain_a_snapshot_equally_share_its_probability():
    """y = b₁/|b₁| + b₂/|b₂| has the same likelihood at either: |b₁ᴴy| / |b₁| = |b₂ᴴy| / |b₂|."""
    scene = replace(SCENE, num_snapshots=1, num_antennas=64)
    law = scenes_of(scene, count=2, size=16)
    search = search_grid(scene)
    echoes = respond(law.channel, law.codes, search.response(places_of(law)[:, :2]))[:, 0]
    echoes = echoes / torch.linalg.vector_norm(echoes, dim=1, keepdim=True)
    law = replace(law, snapshots=echoes.sum(-1).unsqueeze(1))
    total = torch.zeros(16, dtype=torch.float64)
    for source in range(2):
        place, one = places_of(law)[:, [source]], torch.ones(16, 1, dtype=torch.bool)
        found = make_estimates(place, one, one, one, search, 1)
        total += place_probability(law, found, search)[:, 0]
    assert 0.9 < total.max() < 1.02  # a few steps of scoring end just below a peak


def test_ambiguous_places_are_not_resolved_and_keep_a_calibrated_confidence():
    scene, count = replace(SCENE, num_snapshots=1), torch.ones(16, dtype=torch.long)
    law = scenes_of(scene, snr_db=5.0, size=16)
    found = sml(law, count, search_grid(scene))
    judged = vouch(law, found, count, scene)
    ambiguous = judged.reason == AMBIGUOUS
    assert ambiguous.any()
    assert (found.resolved.numpy() & ~judged.resolved)[ambiguous].all()
    sure = vouch(law, found, count, scene, torch.full_like(found.azimuth, 0.9))
    assert (sure.reason[ambiguous] == "").all()
    assert (sure.resolved == judged.resolved).all()
    assert not vouched(sure)[ambiguous].any()
