"""Rows for figures: eigenvalues and pseudospectrum of the true covariance."""

import math

import pytest
import torch
from torch import nn

from trainer.config import TrainConfig
from trainer.covariance.covariance import Covariance, normalise, true_factor
from trainer.evaluation.figure_rows import eigenvalue_rows, pseudospectrum_rows
from trainer.scenes.measurement import Scenes
from trainer.training.loop import initial_network

CONFIG = TrainConfig.from_params({"network.width": 8, "network.depth": 2})
ELEMENTS = CONFIG.scene.num_elements


class Exact(nn.Module):
    """The true covariance, loaded."""

    def forward(self, scenes: Scenes) -> Covariance:
        return normalise(factor=true_factor(scenes), eps_psd=0.3)


@pytest.fixture(scope="module")
def eigenvalues():
    rows = eigenvalue_rows(Exact(), initial_network(CONFIG), CONFIG)
    return {(r["stage"], r["snr_db"], r["num_sources"], r["index"]): r for r in rows}


def test_there_is_one_row_per_stage_snr_count_and_index(eigenvalues):
    snrs, counts = CONFIG.evaluation.objective_snr_db, CONFIG.scene.max_sources
    assert len(eigenvalues) == 3 * len(snrs) * counts * ELEMENTS
    assert all(
        math.isfinite(v) for r in eigenvalues.values() for v in r.values() if v != r["stage"]
    )


def test_the_exact_covariance_has_k_eigenvalues_and_nothing_else(eigenvalues):
    """Loading of .3 tr(R)/N would show as eigenvalues of .008: it is excluded."""
    for snr_db in CONFIG.evaluation.objective_snr_db:
        one = eigenvalues["trained", snr_db, 1, 1]
        assert one["eigenvalue"] == pytest.approx(1, abs=1e-5)
        for count in (1, 2):
            rest = eigenvalues["trained", snr_db, count, count + 1]
            assert rest["eigenvalue_high"] < 1e-5
        assert eigenvalues["trained", snr_db, 2, 2]["eigenvalue_low"] > 0.05


def test_eigenvalues_descend_between_their_quantiles(eigenvalues):
    for (stage, snr_db, count, index), row in eigenvalues.items():
        assert row["eigenvalue_low"] <= row["eigenvalue"] <= row["eigenvalue_high"]
        if index > 1:
            assert row["eigenvalue"] <= eigenvalues[stage, snr_db, count, index - 1]["eigenvalue"]


def test_the_pseudospectrum_of_the_exact_covariance_peaks_at_the_sources():
    rows = pseudospectrum_rows(Exact(), CONFIG)
    truth = places(rows, "truth")
    assert len(truth) == 2
    found = places(rows, "network")
    for (a, e), (x, y) in zip(sorted(truth), sorted(found), strict=True):
        assert math.hypot(a - x, e - y) < 0.01
    grid = [r for r in rows if (r["estimator"], r["kind"]) == ("network", "grid")]
    assert min(r["level_db"] for r in grid) >= -1e-3  # nothing is less than wholly outside
    highest = max(grid, key=lambda r: r["level_db"])
    place = highest["azimuth_deg"], highest["elevation_deg"]
    # the grid has 8 points per beam; 36 elements in 6 x 6 make a beam of 19 deg, so 3 to a side
    assert min(math.dist(place, true) for true in truth) < 3
    assert {r["estimator"] for r in rows} == {"truth", "lmmse_music", "network"}
    keys = [(r["estimator"], r["kind"], r["point"]) for r in rows]
    assert len(keys) == len(set(keys))


def test_classical_rows_do_not_depend_on_the_network():
    one, two = (pseudospectrum_rows(n, CONFIG) for n in (Exact(), initial_network(CONFIG)))
    for rows in (one, two):
        rows[:] = [r for r in rows if r["estimator"] != "network"]
    assert one == two


def test_the_initial_network_leaves_the_generator_as_it_is():
    state = torch.random.get_rng_state()
    first, second = (initial_network(CONFIG).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(torch.random.get_rng_state(), state)


def places(rows, estimator):
    return [
        (r["azimuth_deg"], r["elevation_deg"])
        for r in rows
        if r["estimator"] == estimator and r["kind"] == "source"
    ]
