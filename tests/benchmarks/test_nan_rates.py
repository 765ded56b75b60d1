"""Shares of diverged trainings: whose seeds they have, how they are counted, what is kept."""

import json
import sys
from pathlib import Path

import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import nan_rates
from nan_rates import BACKENDS, DESIGN, configs, measured, share, table, trained

SMALL = {"seeds": 2, "steps": 1, "batch": 4}


def test_backends_share_the_seeds_of_a_cell_and_cells_have_their_own():
    cells = {}
    for about, config in configs(**SMALL):
        key = about["network"], about["regime"]
        cells.setdefault(key, {}).setdefault(about["backend"], set()).add(config.seed)
        assert config.eigengap.weight == 1.0
        assert config.eigengap.definition == "subspace"
    assert len(cells) == len(DESIGN.networks) * len(DESIGN.regimes)
    seeds = []
    for (network, _), backends in cells.items():
        assert set(backends) == {*BACKENDS} - ({"gram"} if network != "factor" else set())
        (own,) = set(map(frozenset, backends.values()))
        seeds += own
    assert len(seeds) == len(set(seeds)) == SMALL["seeds"] * len(cells)


@pytest.mark.parametrize(("lost", "total"), [(0, 40), (7, 40), (40, 40)])
def test_the_interval_is_that_of_clopper_and_pearson(lost, total):
    """Its ends are quantiles of beta distributions (1934)."""
    low = stats.beta.ppf(0.025, lost, total - lost + 1) if lost else 0
    high = stats.beta.ppf(0.975, lost + 1, total - lost) if lost < total else 1
    rows = [{"diverged": i < lost} for i in range(total)]
    assert share(rows) == f"{lost} of {total} [{low:.2f}, {high:.2f}]"


def test_a_training_that_diverges_is_told_from_one_that_does_not():
    """R of `gram` has ties at its start, where torch's derivative of a projector is NaN."""
    found = {
        about["backend"]: trained(config)
        for about, config in configs(seeds=1, steps=1, batch=4)
        if (about["network"], about["regime"]) == ("gram", "local")
    }
    assert [name for name, row in found.items() if row["diverged"]] == ["eigh", "svd"]
    assert found["eigh"]["term"] == "eigengap"
    assert (found["eigh"]["steps"], found["exact"]["steps"]) == (0, 1)


def test_what_the_cache_has_is_not_trained_again(tmp_path, monkeypatch):
    cache, made = tmp_path / "cache.jsonl", []

    def stand(config):
        made.append(config.digest)
        return {"diverged": config.spectral.backend == "svd", "steps": 1, "seconds": 0.0}

    monkeypatch.setattr(nan_rates, "trained", stand)
    rows = measured(cache, **SMALL)
    assert len(made) == len(set(made)) == len(rows)
    lines = cache.read_text().splitlines()
    cache.write_text("\n".join(lines[:-1]) + "\n")
    assert measured(cache, **SMALL) == rows
    assert len(made) == len(rows) + 1
    assert json.loads(cache.read_text().splitlines()[-1]) == rows[-1]
    assert "| 0 of 10 [0.00, 0.31] | 10 of 10 [0.69, 1.00] |" in table(rows, "network")
