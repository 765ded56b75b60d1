"""MUSIC, MVDR, beamformer: textbook spectra, exact covariances, an outside library, the CRB."""

import math
from dataclasses import replace

import numpy as np
import pyroomacoustics
import pytest
import torch
from torch import Tensor

from tests.matrices import true_covariance
from trainer.config import SceneConfig
from trainer.estimation import peak_refinement
from trainer.estimation.levenberg_marquardt import minimise
from trainer.estimation.pseudospectra import ESTIMATORS, beamformer, music, mvdr
from trainer.evaluation.crb import stochastic_crb
from trainer.evaluation.metrics import match
from trainer.scenes.geometry import Panel, steering_vector
from trainer.scenes.grid import SearchGrid, search_grid
from trainer.scenes.measurement import Scenes, Sources
from trainer.scenes.simulation import EvalScenes

SMALL = SceneConfig()
TINY = SceneConfig(num_horizontal=4, num_vertical=4)
LARGE = SceneConfig(
    num_horizontal=12, num_vertical=12, num_antennas=16, max_sources=3, range_max_m=10.0
)


def exact(config: SceneConfig, count: int, num_sources: int | None, seed: int = 11):
    scenes = EvalScenes(config, seed).batch(
        range(count), snr_db=0.0, num_sources=num_sources, dtype=torch.complex128
    )
    return scenes, true_covariance(scenes)


def grid(config: SceneConfig) -> SearchGrid:
    return search_grid(config, torch.float64)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.complex128, generator=generator)


def random_covariance(batch: int, size: int, rank: int | None = None) -> Tensor:
    factor = normal(batch, size, rank or size)
    matrix = factor @ factor.mH
    return matrix / matrix.diagonal(dim1=-2, dim2=-1).real.sum(-1)[:, None, None]


def test_music_finds_every_source_of_an_exact_covariance():
    scenes, covariance = exact(LARGE, 120, None)
    estimates = music(covariance, scenes.sources.num_sources, grid(LARGE), slots=3)
    errors = match(estimates, scenes.sources)
    assert errors.found[errors.active].all()
    assert errors.angle_deg[errors.active].max() < 0.01
    assert errors.range_m[errors.active].abs().max() < 0.05


def test_music_in_single_precision_is_exact_to_a_hundredth_of_a_degree():
    scenes = EvalScenes(SMALL, 2).batch(range(200), snr_db=0.0)
    estimates = music(true_covariance(scenes), scenes.sources.num_sources, search_grid(SMALL))
    errors = match(estimates, scenes.sources)
    assert errors.angle_deg[errors.active].max() < 0.01


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
@pytest.mark.parametrize("deflation", [True, False])
def test_every_estimator_finds_a_single_source_of_an_exact_covariance(estimator, deflation):
    scenes, covariance = exact(SMALL, 50, 1)
    loaded = covariance + 1e-3 * torch.eye(36)
    estimates = estimator(loaded, scenes.sources.num_sources, grid(SMALL), deflation=deflation)
    errors = match(estimates, scenes.sources)
    assert errors.found[errors.active].all()
    assert errors.angle_deg[errors.active].max() < 1e-4


def textbook(name: str, covariance: Tensor, num_sources: int, steering: Tensor) -> np.ndarray:
    """Return textbook pseudospectra, one matrix at a time: [B, G]."""
    spectra = []
    a = steering.numpy().T
    for r in covariance.numpy():
        _, vectors = np.linalg.eigh(r)
        noise = vectors[:, : len(r) - num_sources]
        spectra.append(
            {
                "music": lambda noise=noise: 1 / (np.abs(noise.conj().T @ a) ** 2).sum(0),
                "mvdr": lambda r=r: 1 / (a.conj() * np.linalg.solve(r, a)).sum(0).real,
                "beamformer": lambda r=r: (a.conj() * (r @ a)).sum(0).real,
            }[name]()
        )
    return np.array(spectra)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_no_grid_point_is_higher_than_the_estimate_in_the_textbook_spectrum(name):
    covariance = random_covariance(20, 36) + 0.02 * torch.eye(36)
    search = grid(SMALL)
    one = torch.ones(20, dtype=torch.long)
    for deflation in (True, False):
        estimates = ESTIMATORS[name](covariance, one, search, deflation=deflation)
        positions = estimates.azimuth, estimates.elevation, estimates.range_m
        found = steering_vector(search.panel, *positions).squeeze(1)
        on_grid = textbook(name, covariance, 1, search.steering).max(-1)
        there = [
            textbook(name, covariance[i : i + 1], 1, found[i : i + 1]).item() for i in range(20)
        ]
        assert (np.array(there) >= on_grid * (1 - 1e-9)).all()


@pytest.mark.parametrize("estimator", [music, beamformer])
def test_loading_and_scale_do_not_move_estimates(estimator):
    covariance, two = random_covariance(4, 36), torch.full((4,), 2)
    reference = estimator(covariance, two, grid(SMALL))
    for eps in (1e-6, 1e-2, 1.0):
        moved = estimator(5 * covariance + eps * torch.eye(36), two, grid(SMALL))
        torch.testing.assert_close(moved.azimuth, reference.azimuth, rtol=0, atol=1e-6)
    scaled = estimator(1e4 * covariance, two, grid(SMALL))
    torch.testing.assert_close(scaled.azimuth, reference.azimuth, rtol=0, atol=1e-6)


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
@pytest.mark.parametrize("deflation", [True, False])
def test_a_batch_gives_what_its_members_give_alone(estimator, deflation):
    covariance = random_covariance(4, 36, rank=16) + 1e-2 * torch.eye(36)
    counts = torch.tensor([1, 3, 0, 2])
    together = estimator(covariance, counts, grid(SMALL), slots=3, deflation=deflation)
    for i in range(4):
        one = slice(i, i + 1)
        alone = estimator(covariance[one], counts[one], grid(SMALL), slots=3, deflation=deflation)
        assert alone.resolved.equal(together.resolved[one])
        torch.testing.assert_close(alone.azimuth, together.azimuth[one], rtol=0, atol=1e-7)
        assert not together.resolved[i, counts[i] :].any()


def test_a_covariance_that_is_not_finite_resolves_nothing_and_spares_its_neighbours():
    covariance, two = random_covariance(3, 36), torch.full((3,), 2)
    clean = music(covariance, two, grid(SMALL))
    covariance[1, 4, 5] = math.nan
    estimates = music(covariance, two, grid(SMALL))
    assert not estimates.resolved[1].any()
    assert estimates.resolved[::2].equal(clean.resolved[::2])
    assert torch.isfinite(estimates.azimuth).all()
    assert estimates.azimuth[0].equal(clean.azimuth[0])


@pytest.mark.parametrize("estimator", ESTIMATORS.values())
@pytest.mark.parametrize("deflation", [True, False])
def test_degenerate_covariances_give_finite_estimates(estimator, deflation):
    covariance = torch.stack(
        [torch.eye(36), torch.zeros(36, 36), torch.ones(36, 36)]  # white, nothing, one direction
    ).to(torch.complex128)
    estimates = estimator(covariance, torch.full((3,), 2), grid(SMALL), deflation=deflation)
    for value in (estimates.azimuth, estimates.elevation, estimates.range_m):
        assert torch.isfinite(value).all()


def test_estimates_stay_in_the_region():
    estimates = music(random_covariance(50, 36), torch.full((50,), 3), grid(SMALL))
    assert estimates.azimuth.abs().max() <= math.radians(60) + 1e-12
    assert estimates.elevation.abs().max() <= math.radians(30) + 1e-12
    assert estimates.range_m.min() >= 0.5 - 1e-12
    assert estimates.range_m.max() <= 3.0 + 1e-12


def test_a_repeated_estimate_is_resolved_once():
    _, covariance = exact(SMALL, 20, 1)
    twice = beamformer(covariance, torch.full((20,), 2), grid(SMALL), deflation=False)
    first = torch.stack([twice.azimuth[:, 0], twice.elevation[:, 0]])
    second = torch.stack([twice.azimuth[:, 1], twice.elevation[:, 1]])
    together = (first - second).abs().amax(0) < 1e-3
    assert not (twice.resolved[:, 1] & together).any()


def test_the_subspace_fit_has_the_gradient_of_its_cost(monkeypatch):
    """Every refinement descends along the exact gradient; curvature may be approximate."""
    search = grid(SMALL)
    beams = normal(4, 36, 5)
    found = torch.linalg.qr(normal(4, 36, 1, seed=1)).Q
    start = torch.tensor([[0.3, 0.1, 1.1], [-0.4, -0.2, 0.7]], dtype=torch.float64)
    start = start.expand(4, 2, 3).contiguous()
    active = torch.tensor([[True, True], [True, False], [True, True], [True, True]])

    def value(position: Tensor) -> Tensor:
        azimuth, elevation, inverse = position.unbind(-1)
        steering = steering_vector(search.panel, azimuth, elevation, 1 / inverse).mT
        steering = (steering - found @ (found.mH @ steering)) * active.unsqueeze(1)
        gram = steering.mH @ steering + torch.diag_embed((~active).double())
        fitted = steering @ torch.linalg.solve(gram, steering.mH @ beams)
        return -(beams.conj() * fitted).real.sum((-2, -1))

    position = start.clone().requires_grad_()
    (expected,) = torch.autograd.grad(value(position).sum(), position)
    seen = []

    def spy(model, begin, *args, **kwargs):
        seen.append(model(begin))
        return minimise(model, begin, *args, **kwargs)

    monkeypatch.setattr(peak_refinement, "minimise", spy)
    result = peak_refinement.fit_subspace(beams, start, active, search, found, steps=5)
    # the ridge is 1e-6 of the Gram's diagonal, gradients are of order 10
    torch.testing.assert_close(seen[0].gradient.view(4, 2, 3), expected, rtol=1e-4, atol=1e-3)
    assert (result.value < seen[0].value).all()


def direct_scenes(count: int, snr_db: float) -> Scenes:
    """Return scenes in which the panel itself is the array: G = I, L = 200."""
    config = replace(TINY, num_antennas=16, num_snapshots=200, max_sources=1)
    scenes = EvalScenes(config, 5).batch(
        range(count), snr_db=snr_db, num_sources=1, dtype=torch.complex128
    )
    sources = scenes.sources
    steering = steering_vector(scenes.panel, sources.azimuth, sources.elevation, sources.range_m)
    variance = torch.full((count,), 10 ** (-snr_db / 10), dtype=torch.float64)
    noise = variance[:, None, None].sqrt() * normal(count, 200, 16, seed=1)
    snapshots = normal(count, 200, 1) @ steering + noise
    identity = torch.eye(16, dtype=torch.complex128).expand(count, 16, 16)
    codes = torch.ones(count, 200, 16, dtype=torch.complex128)
    return replace(
        scenes, snapshots=snapshots, channel=identity, codes=codes, noise_variance=variance
    )


def test_music_is_efficient_where_the_panel_itself_is_measured():
    scenes = direct_scenes(400, snr_db=5.0)
    covariance = scenes.snapshots.mT @ scenes.snapshots.conj()
    estimates = music(covariance, scenes.sources.num_sources, grid(TINY))
    errors = match(estimates, scenes.sources)
    # without codes all snapshots inform alike: the bound of one, over their number
    bound = stochastic_crb(replace(scenes, codes=scenes.codes[:, :1]))
    for error, variance in (
        (errors.azimuth_deg.deg2rad(), bound.azimuth),
        (errors.elevation_deg.deg2rad(), bound.elevation),
    ):
        ratio = (error.square() / (variance / 200)).mean().sqrt().item()
        # 400 squared normals: the root of their mean has a standard error of 3.5 %
        assert 0.9 < ratio < 1.1


def test_music_on_a_linear_array_has_the_peaks_that_pyroomacoustics_finds():
    """Far field, one row, the same snapshots: peaks agree to the reference's grid step."""
    frequency, speed, step_deg = 1000.0, 343.0, 0.05
    wavelength = speed / frequency
    row = SceneConfig(
        num_horizontal=10,
        num_vertical=1,
        wavelength_m=wavelength,
        spacing_m=wavelength / 2,
        elevation_max_deg=1e-3,
        range_min_m=5e3,
        range_max_m=1e4,
    )
    panel = Panel.from_config(row)
    truth = torch.tensor([-0.35, 0.2, 0.6], dtype=torch.float64)
    steering = steering_vector(panel, truth, torch.zeros(3).double(), torch.full((3,), 8e3))
    snapshots = normal(60, 3, seed=4) @ steering + 0.3 * normal(60, 10, seed=5)
    covariance = (snapshots.mT @ snapshots.conj()).unsqueeze(0)
    ours = music(covariance, torch.tensor([3]), grid(row), deflation=False)
    positions = np.zeros((2, 10))
    positions[0] = panel.element_positions(torch.float64, torch.device("cpu"))[0].numpy()
    # theirs: angle from the array's axis, so 90 deg - azimuth; conjugated, for exp(+jωt) means
    # a phase that rises towards the source in both, seen from the element
    angles = np.deg2rad(np.arange(30, 150, step_deg))
    reference = pyroomacoustics.doa.MUSIC(
        positions, fs=8000, nfft=8, c=speed, num_src=3, azimuth=angles, mode="far"
    )
    spectrum = np.zeros((10, 5, 60), dtype=complex)
    spectrum[:, 1] = snapshots.mT.numpy()  # bin 1 of 8 at 8 kHz is 1 kHz
    reference.locate_sources(spectrum, freq_bins=[1])
    theirs = np.sort(np.rad2deg(np.pi / 2 - reference.azimuth_recon))
    assert np.sort(ours.azimuth[0].rad2deg().numpy()) == pytest.approx(theirs, abs=step_deg)


def test_mvdr_resolves_more_than_the_beamformer():
    """Two sources within a beam: Capon's spectrum has two peaks where Bartlett's has one."""
    panel, search = Panel.from_config(LARGE), grid(LARGE)
    azimuth = torch.tensor([[-0.06, 0.06]], dtype=torch.float64)
    zero, far = torch.zeros_like(azimuth), torch.full_like(azimuth, 9.0)
    truth = Sources(azimuth, zero, far, far / far, torch.ones_like(azimuth, dtype=torch.bool))
    columns = steering_vector(panel, azimuth, zero, far).mT
    covariance = columns @ columns.mH + 1e-2 * torch.eye(144)
    two = torch.tensor([2])
    capon = match(mvdr(covariance, two, search, deflation=False), truth)
    bartlett = match(beamformer(covariance, two, search, deflation=False), truth)
    assert capon.angle_deg.max() < 0.5 < bartlett.angle_deg.max()
