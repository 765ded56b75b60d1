"""The search grid: refused where it would fill the memory."""

import re

import pytest

from trainer.config import ConfigError, SceneConfig
from trainer.scenes import grid_shape, search_grid


@pytest.mark.parametrize(("near", "far"), [(1e-6, 10.0), (1e-9, 1e9), (1e-300, 3.0)])
def test_a_region_too_near_is_refused_and_the_advised_one_is_searched(near, far):
    panel = {"num_horizontal": 4, "num_vertical": 4}
    with pytest.raises(ConfigError, match="search grid has at most 300000 points") as refused:
        search_grid(SceneConfig(**panel, range_min_m=near, range_max_m=far))
    advice = re.search(
        r"range_min_m=(\S+) \(localise: --range-m (\S+) (\S+)\)", str(refused.value)
    )
    assert advice
    assert advice[1] == advice[2]
    planes, *_ = grid_shape(
        SceneConfig(**panel, range_min_m=float(advice[2]), range_max_m=float(advice[3]))
    )
    assert 1000 < planes <= 5000


def test_a_region_within_the_panel_is_refused_and_the_advised_one_is_searched():
    panel = {"num_horizontal": 6, "num_vertical": 6}
    with pytest.raises(ConfigError, match="Give ranges beyond the panel") as refused:
        search_grid(SceneConfig(**panel, range_min_m=1e-9, range_max_m=1e-8))
    advice = re.search(r"--range-m (\S+) (\S+)\)", str(refused.value))
    assert advice
    search_grid(SceneConfig(**panel, range_min_m=float(advice[1]), range_max_m=float(advice[2])))


def test_a_panel_too_large_to_search_is_refused():
    with pytest.raises(ConfigError, match="Give fewer elements or smaller angles"):
        search_grid(SceneConfig(num_horizontal=300, num_vertical=300, range_min_m=2.9))
