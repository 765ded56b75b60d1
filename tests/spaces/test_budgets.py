"""The reduced budget of the preset `full`: the same space, for two cores."""

import pytest

import spaces
from trainer.config import TrainConfig


def scenes_of(space: spaces.Space) -> int:
    """Scenes that all trainings of a space see at most."""
    config = TrainConfig.from_params(space.fixed)
    return space.trials * config.epochs * config.steps_per_epoch * config.batch_size


def test_the_reduced_budget_is_the_same_search_of_fewer_scenes():
    whole, reduced = spaces.get("full"), spaces.get("full", "reduced")
    assert whole.describe() == reduced.describe()
    ours, theirs = (TrainConfig.from_params(space.fixed) for space in (whole, reduced))
    assert ours.scene == theirs.scene
    assert reduced.trials >= 12
    assert reduced.minutes <= 90
    # 53 ms of a core for a scene and three stages, forward and backward (docs/network.md)
    assert scenes_of(reduced) * 0.053 / 2 < 90 * 60
    assert scenes_of(reduced) < scenes_of(whole) / 100


def test_a_budget_that_a_preset_has_not_is_refused():
    with pytest.raises(ValueError, match="reduced budget are full, but got 'local'"):
        spaces.get("local", "reduced")
    with pytest.raises(ValueError, match="must be one of whole, reduced"):
        spaces.get("full", "small")
    with pytest.raises(ValueError, match="Did you mean `full`"):
        spaces.get("ful", "reduced")
