"""Laws of the unrolled network: its gradient maps, its first steps, its training.

Laws of all networks (trace, invariances, gradients at the edges) are in `test_networks`.
"""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.resimulated import resimulated, two_state_codes
from trainer.config import NetworkConfig, SceneConfig, TrainConfig
from trainer.covariance.backprojection import channel_eigenmodes, fit_loading
from trainer.covariance.covariance_fit import (
    Observations,
    inverse_covariances,
    likelihood_gradient,
    update_noise,
)
from trainer.covariance.dictionary import SteeringDictionary, steering_dictionary
from trainer.networks import single_source
from trainer.networks.registry import build_network
from trainer.networks.unrolled import Stage
from trainer.scenes.grid import search_grid
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import simulate

SCENE = SceneConfig(num_horizontal=4, num_vertical=4, num_antennas=6, num_snapshots=5)
BATCH = 4


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def scenes_of(config: SceneConfig = SCENE, snr_db: float = 0.0, batch: int = BATCH) -> Scenes:
    generator = torch.Generator().manual_seed(0)
    return simulate(
        config, batch, snr_db=snr_db, generator=generator, device="cpu", dtype=torch.complex128
    )


def table_of(config: SceneConfig = SCENE) -> SteeringDictionary:
    return steering_dictionary(config, torch.float64)


def some_powers(count: int, batch: int = BATCH) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return (3 * torch.randn(batch, count, generator=generator)).softmax(-1)


def log_likelihood(
    observed: Observations, table: SteeringDictionary, powers: Tensor, log_noise: Tensor
) -> Tensor:
    """Return the log likelihood of all snapshots with p at its best: [B]."""
    root = table.steering * powers.sqrt().unsqueeze(-1)  # rows sqrt(γ_g) a_gᵀ
    echoes = observed.responses @ root.mT.unsqueeze(1)
    eye = torch.eye(echoes.shape[-2], dtype=echoes.dtype)
    matrix = echoes @ echoes.mH + log_noise.exp()[:, None, None, None] * eye
    y = observed.snapshots.unsqueeze(-1)
    energy = (y.mH @ torch.linalg.solve(matrix, y)).real.sum((1, 2, 3))
    return -observed.snapshots[0].numel() * energy.log() - torch.logdet(matrix).real.sum(-1)


@pytest.mark.parametrize("noise_correlation", [0.0, 0.6])
def test_the_likelihood_gradient_is_its_derivative(noise_correlation: float) -> None:
    """num - den against autograd, in γ_g and in λ."""
    scenes = scenes_of(replace(SCENE, noise_correlation=noise_correlation))
    table, observed = table_of(), Observations.from_scenes(scenes)
    products = table.products()
    powers = some_powers(len(table.steering)).requires_grad_()
    log_noise = torch.linspace(-2.0, 1.0, BATCH, requires_grad=True)
    value = log_likelihood(observed, table, powers, log_noise).sum()
    by_power, by_log_noise = torch.autograd.grad(value, (powers, log_noise))
    with torch.no_grad():
        matrix = products.mixture(powers)
        gradient = likelihood_gradient(observed, matrix, log_noise, products)
        noise = log_noise.exp()
        traces = inverse_covariances(observed, matrix, noise).diagonal(dim1=-2, dim2=-1)
    denominator = gradient.log_information.exp() * scenes.snapshots[0].numel()
    slope = denominator * gradient.log_ratio.expm1()
    torch.testing.assert_close(slope, by_power, rtol=1e-9, atol=1e-9)
    of_noise = noise * traces.real.sum((-2, -1)) * gradient.noise_log_ratio.expm1()
    torch.testing.assert_close(of_noise, by_log_noise, rtol=1e-9, atol=1e-9)


def test_a_textbook_step_never_lowers_the_likelihood() -> None:
    """And a stage that has learned nothing takes that step."""
    table, observed = table_of(), Observations.from_scenes(scenes_of())
    products = table.products()
    stage = Stage(NetworkConfig(kind="unrolled", width=4, stages=1), table.shape)
    log_powers = some_powers(len(table.steering)).log()
    log_noise = torch.full((BATCH,), 1.5)
    before = log_likelihood(observed, table, log_powers.exp(), log_noise)
    with torch.no_grad():
        for _ in range(20):
            powers = log_powers.exp()
            gradient = likelihood_gradient(observed, products.mixture(powers), log_noise, products)
            log_powers = stage(log_powers, gradient, torch.zeros(BATCH))
            expected = powers * (gradient.log_ratio / 2).exp()
            expected = expected / expected.sum(-1, keepdim=True)
            torch.testing.assert_close(log_powers.exp(), expected, rtol=1e-9, atol=1e-15)
            log_noise = update_noise(log_noise, powers, gradient)
            after = log_likelihood(observed, table, log_powers.exp(), log_noise)
            assert (after > before - 1e-9).all()
            before = after


def test_the_gradient_vanishes_at_the_truth() -> None:
    """E num = den under the true R and λ, within five standard errors of L = 2,000 snapshots."""
    config = replace(SCENE, num_snapshots=2000)
    scenes, table = scenes_of(config, batch=1), table_of(config)
    products = table.products()
    generator = torch.Generator().manual_seed(2)
    powers = torch.zeros(1, len(table.steering))
    powers[0, [3, 50]] = 0.5
    observed, noise = Observations.from_scenes(scenes), 0.3

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.complex128, generator=generator)

    panel = (normal(2000, 2) * 0.5**0.5) @ table.steering[[3, 50]]
    clean = (observed.responses[0] @ panel.unsqueeze(-1)).squeeze(-1)
    snapshots = (clean + noise**0.5 * normal(*clean.shape)).unsqueeze(0)
    observed = observed._replace(snapshots=snapshots)
    log_noise = torch.tensor([noise]).log()
    gradient = likelihood_gradient(observed, products.mixture(powers), log_noise, products)
    # num is a sum of 2,000 squares, each at most 100 % spread: 5 / sqrt(2000), and as much for p
    assert gradient.log_ratio.abs().max() < 0.2
    assert gradient.noise_log_ratio.abs().max() < 0.2


def test_a_scene_that_cannot_be_fitted_leaves_its_neighbours_alone() -> None:
    table, observed = table_of(), Observations.from_scenes(scenes_of())
    products = table.products()
    powers = some_powers(len(table.steering))
    matrix = products.mixture(powers)
    broken = matrix.clone()
    broken[1] = -100 * matrix[1]
    log_noise = torch.zeros(BATCH)
    whole = likelihood_gradient(observed, matrix, log_noise, products).log_ratio
    part = likelihood_gradient(observed, broken, log_noise, products).log_ratio
    assert part[1].isnan().all()
    others = [0, 2, 3]
    torch.testing.assert_close(part[others], whole[others], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gains", [(1.0, 1.0), (0.3, 1.0)])
def test_the_likelihood_of_a_single_source_is_that_of_its_gaussian(
    monkeypatch: pytest.MonkeyPatch, gains: tuple[float, float]
) -> None:
    """All modes exact: the log density of y ~ CN(0, p (h b bᴴ + λ I)), point by point."""
    monkeypatch.setattr(single_source, "EXACT_MODES", SCENE.num_antennas)
    scenes, table = scenes_of(), table_of()
    scenes = resimulated(scenes, codes=two_state_codes(scenes, gains), snr_db=0.0)
    modes = channel_eigenmodes(scenes)
    power, loading = fit_loading(modes)
    made = single_source.single_source_likelihoods(scenes, modes, power, loading, table.products())
    eye = torch.eye(SCENE.num_antennas, dtype=torch.complex128)
    coded = scenes.channel.unsqueeze(1) * scenes.codes.unsqueeze(2)
    echoes = (coded @ table.steering.mT).permute(0, 3, 1, 2).unsqueeze(-1)  # [B, G, L, M, 1]
    y = scenes.snapshots[:, None, :, :, None]
    for share, logs in zip(single_source.SHARES, made.unbind(1), strict=True):
        matrix = share * echoes @ echoes.mH + loading[:, None, None, None, None] * eye
        matrix = power[:, None, None, None, None] * matrix
        exponent = (y.mH @ torch.linalg.solve(matrix, y.expand_as(echoes))).real.sum((2, 3, 4))
        density = -exponent - torch.logdet(matrix).real.sum(-1)
        torch.testing.assert_close(logs, density.log_softmax(-1), rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("gains", [None, (0.3, 1.0)])
def test_weak_modes_enter_by_their_mean(gains: tuple[float, float] | None) -> None:
    """Fewer exact modes change little: the same ranking of positions, on average over scenes."""
    scenes, table = scenes_of(batch=64), table_of()
    if gains:
        codes = scenes.codes * two_state_codes(scenes, gains).abs()
        scenes = resimulated(scenes, codes=codes, snr_db=0.0)
    modes = channel_eigenmodes(scenes)
    args = (scenes, modes, *fit_loading(modes), table.products())
    few = single_source.single_source_likelihoods(*args)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(single_source, "EXACT_MODES", SCENE.num_antennas)
        all_of_them = single_source.single_source_likelihoods(*args)
    centred = [x - x.mean(-1, keepdim=True) for x in (few, all_of_them)]
    cosine = torch.nn.functional.cosine_similarity(*centred, dim=-1)
    assert cosine.mean() > 0.9


@pytest.mark.slow
def test_stages_learn_what_maps_alone_cannot_tell() -> None:
    """After 40 steps on the same scenes, below the dictionary network by five standard errors."""
    torch.set_default_dtype(torch.float32)
    errors, scene = [], SceneConfig(num_antennas=8, num_snapshots=8)
    for network_config in (
        NetworkConfig(width=16),
        NetworkConfig(kind="unrolled", width=16, stages=2),
    ):
        torch.manual_seed(0)
        network = build_network(TrainConfig(scene=scene, network=network_config))
        optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
        generator = torch.Generator().manual_seed(1)

        def draw(batch: int, generator: torch.Generator = generator) -> Scenes:
            return simulate(scene, batch, snr_db=(-5.0, 10.0), generator=generator, device="cpu")

        for _ in range(40):
            scenes = draw(32)
            optimizer.zero_grad()
            network(scenes).nmse(scenes).mean().backward()
            optimizer.step()
        with torch.no_grad():
            held_out = draw(256)
            errors.append(network(held_out).nmse(held_out))
    gain = errors[0] - errors[1]
    assert gain.mean() > 5 * gain.std() / len(gain) ** 0.5


def share_of_the_weaker(noise_floor: float | None, snr_db: float) -> tuple[Tensor, Tensor]:
    """Return R of an untrained network, and the mean share of R in the weaker of two sources."""
    scene = SceneConfig(num_horizontal=6, num_vertical=6, num_antennas=8, num_snapshots=8)
    network = NetworkConfig(kind="unrolled", width=8, stages=2, noise_floor=noise_floor)
    generator = torch.Generator().manual_seed(0)
    scenes = simulate(
        scene,
        16,
        snr_db=snr_db,
        generator=generator,
        device="cpu",
        num_sources=2,
        dtype=torch.complex128,
    )
    with torch.no_grad():
        matrix = build_network(TrainConfig(scene=scene, network=network))(scenes).dense()
    truth = scenes.sources
    place = torch.stack([truth.azimuth, truth.elevation, 1 / truth.range_m], dim=-1)
    steering = search_grid(scene, torch.float64).response(place)
    share = (steering.conj() @ matrix * steering).sum(-1).real / scene.num_elements
    return matrix, share.amin(-1).mean()


def test_with_a_noise_floor_strong_sources_keep_each_other_and_noise_that_is_gone_is_nothing():
    """Without it, the start alone decides on one of them, the more so the less noise there is."""
    (clean, share), (cleaner, _) = (share_of_the_weaker(0.4, snr_db) for snr_db in (50.0, 70.0))
    assert share > 2 * share_of_the_weaker(None, 50.0)[1]
    torch.testing.assert_close(clean, cleaner, rtol=0, atol=2e-3)
