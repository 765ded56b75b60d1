"""Ranges of a run's parameters: as data, and parsed from text where a run holds text alone."""

import pandas as pd
import pytest

import spaces
from search.plan.config import SearchConfig
from search.report.data import Run
from search.report.data.ranges import parameters


@pytest.mark.parametrize("preset", spaces.PRESETS)
def test_text_alone_gives_the_same_ranges_as_data(preset):
    plan = SearchConfig(preset, 4, "x")
    drawn = [plan.space.draw(anchor) for anchor in plan.space.anchors]
    trials = pd.DataFrame(drawn).add_prefix("params.")

    def found(content):
        return [
            (p.name, p.low, p.high, p.log, p.choices)
            for p in parameters(Run(None, content, {"trials": trials}))
        ]

    data = plan.space_json
    text = {"space": data["space"]}
    assert found({"ranges": data["ranges"]}) == found(text) != found({})
