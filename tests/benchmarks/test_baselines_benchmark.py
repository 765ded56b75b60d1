"""Measured tables go to their places, and say what they should about errors that are known."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
from baselines_tables import Point, root_interval, tables
from documents import write_tables

ROOT = Path(__file__).parents[2]


def gaussian(scenes: int, sources: int, scale: float) -> Point:
    """An estimator that errs by `scale` root CRBs of one degree in azimuth and in elevation."""
    errors = scale * np.abs(np.random.default_rng(0).standard_normal((scenes, sources, 2)))
    square = (errors**2).sum(-1).mean(-1)
    right = np.arange(scenes) % 4 > 0
    return Point(
        success={"x": np.ones(scenes)},
        square={"x": square},
        ratio={"x": errors},
        bound=np.full(scenes, 2.0),
        number={"mdl": right},
        gospa=np.zeros(scenes),
    )


def test_an_efficient_estimator_has_a_robust_ratio_of_one_and_the_bounds_rmse():
    point = gaussian(4000, 1, 1.0)
    *_, errors, ratios, numbers = tables({(0.0, 1): point}).values()
    ratio, low, high = (float(x) for x in re.findall(r"\d+\.\d+", ratios.splitlines()[-1]))
    assert low < 1 < high  # 8,000 Gaussian errors
    assert high - low < 0.08
    assert ratio == pytest.approx(1, abs=0.04)
    _, low, high = root_interval(point.square["x"])
    assert low < 2**0.5 < high
    assert "1.41 [1.41, 1.41]" in errors
    assert "| mdl | 0.75 [" in numbers


def test_outliers_make_an_rmse_and_no_robust_ratio():
    point = gaussian(4000, 1, 1.0)
    point.ratio["x"][::50] = 60.0
    *_, ratios, _ = tables({(0.0, 1): point}).values()
    assert float(re.findall(r"\d+\.\d+", ratios.splitlines()[-1])[0]) < 1.1


def test_a_bound_that_is_not_finite_is_counted_and_left_out():
    point = gaussian(8, 2, 1.0)
    point.bound[3] = np.inf
    point.ratio["x"][3] = 0.0
    written = "\n".join(tables({(0.0, 2): point}).values())
    assert "1.41 [1.41, 1.41], 1 unidentifiable" in written
    assert "inf" not in written
    assert "nan" not in written


def test_a_point_survives_a_file(tmp_path):
    point = gaussian(8, 2, 1.0)
    np.savez(tmp_path / "x.npz", **point.as_arrays())
    with np.load(tmp_path / "x.npz") as arrays:
        again = Point.of_arrays(dict(arrays))
    assert tables({(0.0, 2): again}) == tables({(0.0, 2): point})


def test_a_table_goes_to_its_place_and_nowhere_else(tmp_path):
    document = tmp_path / "x.md"
    places = "<!-- one -->\nold\n<!-- end -->\nafter\n<!-- two -->\n<!-- end -->\n"
    document.write_text("before\n" + places)
    write_tables(document, {"one": "| new \\1 |"})
    said = document.read_text()
    assert said.startswith("before\n<!-- one -->\n\n| new \\1 |\n\n<!-- end -->\nafter\n")
    write_tables(document, {"one": "| newer |", "two": "| 2 |"})
    assert "new \\1" not in document.read_text()
    with pytest.raises(ValueError, match="`<!-- three -->`"):
        write_tables(document, {"three": ""})


@pytest.mark.parametrize("scene", ["full", "local"])
def test_the_document_has_what_was_measured(scene):
    text = (ROOT / "docs" / "baselines.md").read_text()
    tables = dict(re.findall(r"<!-- ([\w ]+) -->\n(.*?)<!-- end -->", text, re.DOTALL))
    assert "root CRB" in tables[scene]
    assert "robust ratio" in tables[scene]
    assert (ROOT / "docs" / "figures" / f"baselines_{scene}.png").stat().st_size > 10_000
