"""Information criteria against their formulas, and every rule where theory gives the answer."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from trainer.config import SceneConfig
from trainer.estimation import build_localiser, likeliest_number
from trainer.estimation.source_number import SOURCE_NUMBERS, aic, mdl, widest_gap, widest_ratio
from trainer.scenes import EvalScenes, search_grid


def wax_kailath(values: np.ndarray, snapshots: int, k: int, which: str) -> float:
    """Return one criterion for one k, as published."""
    size = len(values)
    tail = values[k:]
    geometric, arithmetic = np.exp(np.log(tail).mean()), tail.mean()
    likelihood = snapshots * (size - k) * math.log(geometric / arithmetic)
    if which == "aic":
        return -2 * likelihood + 2 * k * (2 * size - k)
    return -likelihood + 0.5 * k * (2 * size - k) * math.log(snapshots)


@pytest.mark.parametrize(("rule", "which"), [(aic, "aic"), (mdl, "mdl")])
def test_criteria_are_those_of_wax_and_kailath(rule, which):
    generator = np.random.default_rng(0)
    values = np.sort(generator.exponential(size=(200, 9)), axis=1)[:, ::-1].copy()
    found = rule(torch.from_numpy(values), 40, 8)
    for row, k in zip(values, found.tolist(), strict=True):
        assert k == np.argmin([wax_kailath(row, 40, j, which) for j in range(9)])


def sample_eigenvalues(num_sources: int, snapshots: int, snr_db: float, size: int = 10):
    """Return eigenvalues of 100 sample covariances of orthogonal sources in unit white noise."""
    generator = torch.Generator().manual_seed(num_sources)

    def normal(*shape: int):
        return torch.randn(*shape, dtype=torch.complex128, generator=generator)

    amplitude = torch.ones(size, dtype=torch.float64)
    amplitude[:num_sources] += 10 ** (snr_db / 10)
    data = amplitude.sqrt() * normal(100, snapshots, size)
    return torch.linalg.eigvalsh(data.mT @ data.conj() / snapshots).flip(-1)


@pytest.mark.parametrize("rule", SOURCE_NUMBERS.values())
@pytest.mark.parametrize("num_sources", [1, 2, 4])
def test_every_rule_counts_strong_sources(rule, num_sources):
    values = sample_eigenvalues(num_sources, 400, snr_db=15)
    right = (rule(values, 400, 6) == num_sources).double().mean()
    # AIC is inconsistent: it overestimates in some per cent of cases however many snapshots
    assert right > (0.8 if rule is aic else 0.99)


def test_mdl_finds_nothing_in_noise_and_aic_too_much():
    values = sample_eigenvalues(0, 400, snr_db=0)
    assert (mdl(values, 400, 6) == 0).all()
    assert 0 < (aic(values, 400, 6) > 0).sum() < 50


def test_eigenvalues_beyond_the_snapshots_are_not_noise():
    """Eight snapshots of 36 elements have 28 zeros, which say nothing about the other eight."""
    kept = sample_eigenvalues(2, 12, snr_db=8, size=8)  # a guess at best
    values = torch.cat([kept, torch.zeros(100, 28, dtype=torch.float64)], dim=-1)
    assert mdl(values, 8, 5).equal(mdl(kept, 8, 5))
    assert aic(values, 8, 5).equal(aic(kept, 8, 5))
    assert len(aic(kept, 8, 5).unique()) > 2


def test_the_ratio_sees_weak_sources_and_the_gap_strong_ones():
    values = torch.tensor([[10.0, 1.0, 0.01, 0.009, 0.008]], dtype=torch.float64)
    assert widest_gap(values, 100, 3).item() == 1
    assert widest_ratio(values, 100, 3).item() == 2


@pytest.mark.parametrize("rule", SOURCE_NUMBERS.values())
def test_rules_do_not_depend_on_scale_and_survive_degenerate_spectra(rule):
    values = sample_eigenvalues(2, 50, snr_db=5)
    assert rule(values, 50, 4).equal(rule(1e-6 * values, 50, 4))
    for odd in (torch.zeros(1, 5), torch.ones(1, 5), torch.tensor([[1.0, 0, 0, 0, 0]])):
        assert 0 <= rule(odd, 1, 3).item() <= 3


@pytest.mark.parametrize("count", [0, 1, 2])
def test_the_evidence_counts_strong_sources_and_none_in_noise(count):
    config = SceneConfig()
    scenes = EvalScenes(config, 6).batch(range(6), snr_db=15.0, num_sources=count)
    locate, search = build_localiser("lmmse_music+scoring", config), search_grid(config)
    said = likeliest_number(scenes, locate, search, 2)
    assert (said == count).sum() >= 5
    louder = dataclasses.replace(scenes, snapshots=1e3 * scenes.snapshots)
    assert torch.equal(said, likeliest_number(louder, locate, search, 2))
