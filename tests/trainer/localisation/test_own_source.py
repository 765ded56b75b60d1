"""An estimate is vouched for only if a source of its own supports it, whoever made it."""

import numpy as np
import pytest
import torch

from tests.small_model import SCENE, scenes_of
from trainer.estimation import make_estimates
from trainer.localisation import vouch
from trainer.localisation.vouching import FEWER, UNSEEN
from trainer.scenes import Scenes, search_grid


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
