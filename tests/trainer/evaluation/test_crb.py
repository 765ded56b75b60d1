"""The bounds against textbook closed forms, brute-force information matrices, and their limits."""

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from trainer.config import SceneConfig
from trainer.evaluation.crb import Bound, deterministic_crb, stochastic_crb
from trainer.scenes.geometry import Panel, steering_derivatives, steering_vector
from trainer.scenes.measurement import Scenes, Sources
from trainer.scenes.simulation import EvalScenes

SCENE = SceneConfig(
    num_horizontal=6, num_vertical=5, num_antennas=7, num_snapshots=8, max_sources=3
)


def make_scenes(
    panel: Panel,
    sources: Sources,
    noise_variance: float,
    *,
    channel: Tensor | None = None,
    codes: Tensor | None = None,
    num_snapshots: int = 8,
) -> Scenes:
    """One scene; by default the antennas are the panel's elements themselves, G = I."""
    size = panel.num_elements
    if channel is None:
        channel = torch.eye(size, dtype=torch.complex128).unsqueeze(0)
    if codes is None:
        codes = torch.ones(1, num_snapshots, size, dtype=torch.complex128)
    snapshots = torch.zeros(1, codes.shape[1], channel.shape[1], dtype=torch.complex128)
    variance = torch.tensor([noise_variance], dtype=torch.float64)
    return Scenes(panel, snapshots, channel, codes, sources, variance, variance)


def make_sources(*places: tuple[float, float, float], power: list[float] | None = None) -> Sources:
    """One scene of sources at (azimuth, elevation, range)."""
    azimuth, elevation, range_m = torch.tensor([places], dtype=torch.float64).unbind(-1)
    levels = torch.tensor([power or [1.0] * len(places)], dtype=torch.float64)
    return Sources(azimuth, elevation, range_m, levels, torch.ones_like(azimuth, dtype=torch.bool))


def stack(bound: Bound) -> Tensor:
    """[B, 3, K]"""
    return torch.stack([bound.azimuth, bound.elevation, bound.range_m], dim=1)


THREE = [(0.3, -0.2, 1.0), (-0.4, 0.1, 2.0), (0.7, 0.35, 0.8)]


def stoica_nehorai(scenes: Scenes) -> Tensor:
    """(σ²/2L) [Re(Dᴴ Π⊥ D ∘ (P Aᴴ R⁻¹ A P)ᵀ)]⁻¹, G = I: variances [3, K].

    Stoica and Nehorai 1990, "Performance study of conditional and unconditional
    direction-of-arrival estimation": all of the sources' covariance is unknown.
    """
    sources, variance = scenes.sources, scenes.noise_variance.item()
    place = scenes.panel, sources.azimuth[0], sources.elevation[0], sources.range_m[0]
    steering = steering_vector(*place).mT.numpy()
    slopes = steering_derivatives(*place).permute(2, 1, 0).flatten(1).numpy()  # coordinate-major
    covariance = sources.covariance[0].numpy()
    total = steering @ covariance @ steering.conj().T + variance * np.eye(len(steering))
    gain = covariance @ steering.conj().T @ np.linalg.solve(total, steering) @ covariance
    outside = np.eye(len(steering)) - steering @ np.linalg.pinv(steering)
    inner = (slopes.conj().T @ outside @ slopes) * np.kron(np.ones((3, 3)), gain.T)
    bound = variance / 2 / scenes.num_snapshots * np.linalg.inv(inner.real)
    return torch.from_numpy(np.diag(bound).copy()).unflatten(0, (3, -1))


@pytest.mark.parametrize("place", THREE)
@pytest.mark.parametrize("noise_variance", [0.01, 1.0, 30.0])
def test_one_source_at_identity_channel_equals_stoica_nehorai(
    place: tuple[float, float, float], noise_variance: float
) -> None:
    scenes = make_scenes(Panel(6, 5, 0.15, 0.3), make_sources(place, power=[1.7]), noise_variance)
    torch.testing.assert_close(
        stack(stochastic_crb(scenes))[0], stoica_nehorai(scenes), rtol=1e-10, atol=0
    )


@pytest.mark.parametrize("noise_variance", [0.01, 1.0, 30.0])
def test_knowing_that_sources_are_uncorrelated_never_raises_the_bound(
    noise_variance: float,
) -> None:
    sources = make_sources(*THREE, power=[1.0, 0.5, 2.0])
    scenes = make_scenes(Panel(6, 5, 0.15, 0.3), sources, noise_variance)
    ours, theirs = stack(stochastic_crb(scenes))[0], stoica_nehorai(scenes)
    assert (ours <= theirs * (1 + 1e-10)).all()
    assert (ours < theirs * (1 - 1e-8)).any()


@pytest.mark.parametrize("azimuth", [0.0, 0.35, -0.9])
def test_linear_array_in_the_far_field_has_its_closed_form(azimuth: float) -> None:
    """6 (1 + 1/(M snr)) / (L M (M² - 1) k² snr), k = 2π (d/λ) cos φ, for φ of a line of M."""
    antennas, snapshots, snr = 10, 12, 0.4
    panel = Panel(antennas, 1, 0.12, 0.3)
    sources = make_sources((azimuth, 0.0, 1e7), power=[snr])
    bound = stochastic_crb(make_scenes(panel, sources, 1.0, num_snapshots=snapshots))
    slope = 2 * math.pi * 0.12 / 0.3 * math.cos(azimuth)
    closed = 6 * (1 + 1 / (antennas * snr)) / (snapshots * antennas * (antennas**2 - 1))
    closed /= slope**2 * snr
    assert bound.azimuth.item() == pytest.approx(closed, rel=1e-10)
    # a horizontal line cannot see elevation
    assert bound.elevation.item() == math.inf
    assert not bound.identifiable.item()


def random_scenes(num_sources: int = 2, **changes: float) -> Scenes:
    config = replace(SCENE, power_spread_db=4.0, **changes)
    batch = EvalScenes(config, 5).batch([0, 1], snr_db=3.0, num_sources=num_sources)
    return batch.to(dtype=torch.complex128)


def brute_force_information(scenes: Scenes, number: int) -> np.ndarray:
    """Slepian-Bangs with C_l(parameters) differentiated automatically, M x M traces in full."""
    sources, count = scenes.sources, int(scenes.sources.num_sources[number])
    held = [x[number, :count] for x in (sources.azimuth, sources.elevation, sources.range_m)]
    parameters = torch.cat(
        [*held, sources.power[number, :count], scenes.noise_variance[number, None]]
    )
    coherence = sources.correlation + (1 - sources.correlation) * torch.eye(count).double()
    shape = scenes.noise_covariance
    noise = torch.eye(scenes.num_antennas).double() if shape is None else shape[number]

    def covariances(values: Tensor) -> Tensor:
        place, power, variance = values[: 3 * count], values[3 * count : -1], values[-1]
        steering = steering_vector(scenes.panel, *place.unflatten(0, (3, -1)))
        root = power.sqrt()
        joint = (root.unsqueeze(0) * coherence * root.unsqueeze(1)).to(steering.dtype)
        echoes = scenes.channel[number] @ (scenes.codes[number].unsqueeze(-1) * steering.mT)
        return torch.view_as_real(echoes @ joint @ echoes.mH + variance * noise)

    slopes = torch.func.jacfwd(covariances)(parameters)  # [L, M, M, 2, Q]
    slopes = torch.view_as_complex(slopes.movedim(-1, 0).contiguous()).numpy()
    total = torch.view_as_complex(covariances(parameters)).numpy()
    inverse = np.stack([scipy.linalg.inv(c) for c in total])
    weighted = inverse @ slopes
    return np.einsum("plij,qlji->pq", weighted, weighted).real


@pytest.mark.parametrize("num_sources", [1, 2, 3])
@pytest.mark.parametrize(
    "changes", [{}, {"source_correlation": 0.5}, {"noise_correlation": 0.6}], ids=str
)
def test_stochastic_bound_is_the_inverse_of_the_brute_force_information(
    num_sources: int, changes: dict[str, float]
) -> None:
    scenes = random_scenes(num_sources, **changes)
    bound = stack(stochastic_crb(scenes))
    for number in range(2):
        inverse = scipy.linalg.inv(brute_force_information(scenes, number))
        expected = torch.from_numpy(np.diag(inverse).copy())[: 3 * num_sources]
        torch.testing.assert_close(
            bound[number, :, :num_sources], expected.unflatten(0, (3, -1)), rtol=1e-10, atol=0
        )


@pytest.mark.parametrize("num_sources", [1, 2, 3])
def test_deterministic_bound_is_that_of_all_amplitudes_unknown(num_sources: int) -> None:
    """Full information matrix of 3K coordinates and 2KL amplitudes, mean B_l s_l."""
    scenes = random_scenes(num_sources, noise_correlation=0.3)
    generator = torch.Generator().manual_seed(3)
    amplitudes = torch.randn(2, 8, 3, dtype=torch.complex128, generator=generator)
    bound = stack(deterministic_crb(scenes, amplitudes))
    sources = scenes.sources
    for number in range(2):
        place = torch.stack([sources.azimuth, sources.elevation, sources.range_m])
        place = place[:, number, :num_sources]
        waves = torch.view_as_real(amplitudes[number, :, :num_sources].contiguous())
        whitener = torch.linalg.inv(torch.linalg.cholesky(scenes.noise_covariance[number]))

        def mean(
            place: Tensor, waves: Tensor, number: int = number, whitener: Tensor = whitener
        ) -> Tensor:
            steering = steering_vector(scenes.panel, *place)
            echoes = scenes.channel[number] @ (scenes.codes[number].unsqueeze(-1) * steering.mT)
            received = echoes @ torch.view_as_complex(waves).unsqueeze(-1)
            return torch.view_as_real(whitener @ received)

        slopes = torch.func.jacfwd(mean, argnums=(0, 1))(place, waves)
        rows = torch.cat([s.flatten(4).flatten(0, 3) for s in slopes], dim=-1).numpy()
        information = 2 / scenes.noise_variance[number].item() * rows.T @ rows
        expected = np.diag(scipy.linalg.inv(information))[: 3 * num_sources].copy()
        torch.testing.assert_close(
            bound[number, :, :num_sources],
            torch.from_numpy(expected).unflatten(0, (3, -1)),
            rtol=1e-9,  # 60 unknowns: the condition of the full matrix is near 1e6
            atol=0,
        )


def test_bounds_fall_as_one_over_the_number_of_snapshots() -> None:
    scenes = random_scenes()
    twice = replace(scenes, codes=scenes.codes.repeat(1, 2, 1))
    for bound in (stochastic_crb, deterministic_crb):
        once, half = stack(bound(scenes)), stack(bound(twice))
        active = scenes.sources.active.unsqueeze(1).expand_as(once)
        torch.testing.assert_close(half[active], once[active] / 2, rtol=1e-10, atol=0)


def test_deterministic_and_stochastic_bound_meet_at_high_snr() -> None:
    scenes, distances = random_scenes(), []
    active = scenes.sources.active.unsqueeze(1).expand(-1, 3, -1)
    for snr_db in (20, 40, 60):
        quiet = replace(scenes, noise_variance=scenes.noise_variance * 10 ** (-snr_db / 10))
        stochastic, deterministic = stochastic_crb(quiet), deterministic_crb(quiet)
        ratio = stack(stochastic)[active] / stack(deterministic)[active]
        distances.append((ratio - 1).abs().max().item())
    # the first term left out is of order 1/SNR
    assert distances[1] == pytest.approx(distances[0] / 100, rel=0.2)
    assert distances[2] == pytest.approx(distances[1] / 100, rel=0.2)
    assert distances[0] < 0.1


def test_stochastic_bound_of_one_source_is_never_below_the_deterministic() -> None:
    sources = make_sources(THREE[0])
    for noise_variance in (0.01, 1.0, 100.0):
        scenes = make_scenes(Panel(6, 5, 0.15, 0.3), sources, noise_variance)
        assert (stack(stochastic_crb(scenes)) >= stack(deterministic_crb(scenes))).all()


def test_more_noise_never_lowers_the_bound() -> None:
    scenes = random_scenes(3)
    louder = replace(scenes, noise_variance=scenes.noise_variance * 1.1)
    for bound in (stochastic_crb, deterministic_crb):
        assert (stack(bound(louder)) > stack(bound(scenes))).all()


def test_bound_ignores_code_phase_and_common_scale() -> None:
    scenes = random_scenes(3)
    turn = torch.exp(2j * math.pi * torch.rand(2, 8, 1, dtype=torch.float64))
    scaled = replace(
        scenes,
        codes=scenes.codes * turn,
        channel=scenes.channel * 3,
        noise_variance=scenes.noise_variance * 9,
    )
    for bound in (stochastic_crb, deterministic_crb):
        torch.testing.assert_close(stack(bound(scaled)), stack(bound(scenes)), rtol=1e-10, atol=0)


def test_inverse_range_bound_is_that_of_the_changed_parameter() -> None:
    scenes = random_scenes(2)
    bound, range_m = stochastic_crb(scenes), scenes.sources.range_m[0, :2].numpy()
    information = brute_force_information(scenes, 0)
    change = np.ones(len(information))
    change[4:6] = -(range_m**2)  # ∂r / ∂(1/r)
    inverse = scipy.linalg.inv(information * np.outer(change, change))
    np.testing.assert_allclose(
        bound.inverse_range[0, :2].numpy(), np.diag(inverse)[4:6], rtol=1e-10
    )


def test_mixed_batch_equals_its_scenes_one_by_one() -> None:
    fixed = EvalScenes(SCENE, 9)
    counts = torch.tensor([2, 0, 3, 1])
    batch = fixed.batch(range(4), snr_db=0.0, num_sources=counts, dtype=torch.complex128)
    for bound in (stochastic_crb, deterministic_crb):
        together = bound(batch)
        assert torch.equal(together.identifiable.sum(-1), counts)
        assert torch.equal(together.azimuth.isfinite(), batch.sources.active)
        for number, count in enumerate(counts.tolist()):
            alone = fixed.batch([number], snr_db=0.0, num_sources=count, dtype=torch.complex128)
            torch.testing.assert_close(
                stack(together)[number], stack(bound(alone))[0], rtol=1e-10, atol=0
            )


def test_single_precision_scenes_are_bounded_in_double_precision() -> None:
    scenes = EvalScenes(SCENE, 9).batch(range(4), snr_db=0.0)
    bound = stochastic_crb(scenes)
    assert bound.azimuth.dtype == torch.float64
    assert torch.equal(bound.identifiable, scenes.sources.active)


def test_what_cannot_be_identified_is_infinite_never_a_number() -> None:
    panel = Panel(6, 5, 0.15, 0.3)
    same = make_scenes(panel, make_sources(THREE[0], THREE[0]), 1.0)
    for bound in (stochastic_crb(same), deterministic_crb(same)):
        assert not bound.identifiable.any()
        assert torch.isinf(stack(bound)).all()
    third = make_scenes(panel, make_sources(THREE[0], THREE[0], THREE[1]), 1.0)
    for bound in (stochastic_crb(third), deterministic_crb(third)):
        assert bound.identifiable.tolist() == [[False, False, True]]
    # two sources 1e-7 rad apart: singular up to rounding
    close = make_sources(THREE[0], (THREE[0][0] + 1e-7, *THREE[0][1:]), THREE[1])
    bound = stochastic_crb(make_scenes(panel, close, 1.0))
    assert bound.identifiable.tolist() == [[False, False, True]]
    assert not torch.isnan(stack(bound)).any()


def test_as_many_sources_as_antennas_leave_the_deterministic_bound_nothing() -> None:
    scenes = EvalScenes(replace(SCENE, num_antennas=3), 1).batch([0], snr_db=0.0, num_sources=3)
    assert not deterministic_crb(scenes).identifiable.any()
    # the stochastic bound knows that sources are uncorrelated, codes make up for antennas
    assert stochastic_crb(scenes).identifiable.all()


def test_line_of_elements_sees_one_angle() -> None:
    """Away from the horizon, azimuth and elevation of a line are only known together."""
    scenes = make_scenes(Panel(8, 1, 0.15, 0.3), make_sources((0.3, 0.2, 1.0)), 1.0)
    for bound in (stochastic_crb(scenes), deterministic_crb(scenes)):
        assert bound.azimuth.item() == bound.elevation.item() == math.inf
        assert math.isfinite(bound.range_m.item())
        assert not bound.identifiable.item()


def test_single_element_sees_nothing() -> None:
    scenes = make_scenes(Panel(1, 1, 0.15, 0.3), make_sources((0.3, 0.2, 1.0)), 1.0)
    for bound in (stochastic_crb(scenes), deterministic_crb(scenes)):
        assert torch.isinf(stack(bound)).all()


def test_unknown_noise_is_refused() -> None:
    scenes = random_scenes()
    unknown = replace(scenes, noise_variance=scenes.noise_variance * math.nan)
    with pytest.raises(ValueError, match="`noise_variance` must be known"):
        stochastic_crb(unknown)
    with pytest.raises(ValueError, match="recorded without truth"):
        stochastic_crb(replace(scenes, truth=None))


@pytest.mark.parametrize("snr_db", [160.0, 400.0, -400.0])
def test_an_extreme_snr_is_unidentifiable_or_bounded_but_no_error(snr_db):
    scenes = EvalScenes(SceneConfig(), 21).batch(
        range(4), snr_db=snr_db, num_sources=2, dtype=torch.complex128
    )
    bound = stochastic_crb(scenes)
    assert not torch.isnan(bound.angle).any()
    assert torch.isfinite(bound.angle[bound.identifiable]).all()
