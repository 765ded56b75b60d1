"""Laws of the networks: their predictions, invariances and training."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from tests.resimulated import resimulated, two_state_codes
from trainer.config import CovarianceConfig, NetworkConfig, SceneConfig, TrainConfig
from trainer.covariance.backprojection import channel_eigenmodes, fit_loading, lmmse
from trainer.covariance.covariance import Covariance, normalise, true_factor
from trainer.covariance.dictionary import steering_dictionary
from trainer.covariance.products import pack_hermitian, unpack_hermitian
from trainer.networks.factor_network import Blend, principal_components
from trainer.networks.gram_network import FLOOR
from trainer.networks.power_map import _interpolate, power_maps
from trainer.networks.registry import build_network
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import simulate
from trainer.spectral.decomposition import spectrum

SCENE = SceneConfig(num_horizontal=4, num_vertical=4, num_antennas=6, num_snapshots=5)
CONFIGS = {
    "dictionary": TrainConfig(scene=SCENE, network=NetworkConfig(width=8)),
    "factor": TrainConfig(
        scene=SCENE,
        network=NetworkConfig(kind="factor", width=8, rank=7),
        covariance=CovarianceConfig(blend_bound=0.3),
    ),
    "unrolled": TrainConfig(
        scene=SCENE, network=NetworkConfig(kind="unrolled", width=8, stages=2)
    ),
    "unrolled, noise floor": TrainConfig(
        scene=SCENE, network=NetworkConfig(kind="unrolled", width=8, stages=2, noise_floor=0.4)
    ),
    **{
        f"gram, {order}": TrainConfig(
            scene=SCENE, network=NetworkConfig(kind="gram", width=4, normalisation=order)
        )
        for order in ("before", "after")
    },
    "factor, no blend": TrainConfig(
        scene=SCENE,
        network=NetworkConfig(kind="factor", width=8, rank=3),
        covariance=CovarianceConfig(blend_bound=0.0),
    ),
}
BATCH = 5
per_network = pytest.mark.parametrize("name", CONFIGS)


@pytest.fixture(autouse=True)
def _double_precision() -> Iterator[None]:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def scenes_of(
    config: SceneConfig = SCENE,
    batch: int = BATCH,
    snr_db: float | tuple[float, float] = (-10.0, 10.0),
) -> Scenes:
    return simulate(
        config,
        batch,
        snr_db=snr_db,
        generator=torch.Generator().manual_seed(0),
        device="cpu",
        dtype=torch.complex128,
    )


def trained(config: TrainConfig) -> nn.Module:
    """Return a network with every parameter moved from its initial value."""
    torch.manual_seed(1)
    network = build_network(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return network


def assert_same(one: Covariance, other: Covariance, rtol: float = 1e-9) -> None:
    torch.testing.assert_close(one.dense(), other.dense(), rtol=rtol, atol=1e-11)


@per_network
def test_the_prediction_is_a_covariance_of_trace_one(name: str) -> None:
    config = CONFIGS[name]
    made = trained(config)(scenes_of())
    matrix = replace(made, shift=torch.zeros_like(made.shift)).dense()
    torch.testing.assert_close(matrix, matrix.mH, rtol=0, atol=1e-15)
    torch.testing.assert_close(
        torch.einsum("bii->b", matrix).real, torch.ones(BATCH), rtol=1e-12, atol=0
    )
    assert torch.linalg.eigvalsh(matrix).min() > -1e-14
    assert (made.factor is not None) == (config.network.kind == "factor")
    if made.factor is not None:
        assert made.factor.shape == (BATCH, config.scene.num_elements, config.factor_columns)


@per_network
def test_the_phase_of_a_snapshots_code_does_not_matter(name: str) -> None:
    network, scenes = trained(CONFIGS[name]), scenes_of()
    phase = torch.polar(torch.ones(BATCH, 5), 6.3 * torch.rand(BATCH, 5)).unsqueeze(-1)
    assert_same(network(scenes), network(replace(scenes, codes=scenes.codes * phase)))
    both = replace(scenes, codes=scenes.codes * phase, snapshots=scenes.snapshots * phase)
    assert_same(network(scenes), network(both))


@per_network
@pytest.mark.parametrize("scale", [3e-30, 7e12])
def test_the_scale_of_the_snapshots_does_not_matter(name: str, scale: float) -> None:
    network, scenes = trained(CONFIGS[name]), scenes_of()
    assert_same(network(scenes), network(replace(scenes, snapshots=scale * scenes.snapshots)))


@per_network
def test_the_order_of_the_snapshots_does_not_matter(name: str) -> None:
    network, scenes = trained(CONFIGS[name]), scenes_of()
    order = torch.tensor([3, 0, 4, 1, 2])
    mixed = replace(scenes, snapshots=scenes.snapshots[:, order], codes=scenes.codes[:, order])
    assert_same(network(scenes), network(mixed))


@per_network
def test_a_scene_does_not_see_its_neighbours(name: str) -> None:
    network, scenes = trained(CONFIGS[name]), scenes_of()
    snapshots = scenes.snapshots.clone()
    snapshots[1:] *= torch.randn(BATCH - 1, 5, 6)
    one = network(scenes).dense()[0]
    other = network(replace(scenes, snapshots=snapshots)).dense()[0]
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


@per_network
def test_a_state_dict_holds_learned_parameters_only(name: str) -> None:
    network = trained(CONFIGS[name])
    assert set(network.state_dict()) == {n for n, _ in network.named_parameters()}
    copy = build_network(CONFIGS[name])
    copy.load_state_dict(network.state_dict())
    assert_same(copy(scenes_of()), network(scenes_of()), rtol=0)


@per_network
def test_weights_serve_other_panels(name: str) -> None:
    """Nothing is learned per element, and range planes are interpolated."""
    network = trained(CONFIGS[name])
    planes = None if name.startswith("gram") else network.shape[0]
    for nearest in (SCENE.range_min_m, 0.2, 2.9):
        scene = replace(
            SCENE, num_horizontal=5, num_vertical=3, num_antennas=7, range_min_m=nearest
        )
        other = replace(
            CONFIGS[name], scene=scene, network=replace(CONFIGS[name].network, planes=planes)
        )
        moved = build_network(other)
        moved.load_state_dict(network.state_dict())
        assert moved(scenes_of(scene)).dense().shape == (BATCH, 15, 15)


@pytest.mark.parametrize("given", [1, 2, 3, 8])
@pytest.mark.parametrize("planes", [1, 2, 3, 8])
def test_interpolation_over_range_planes(given: int, planes: int) -> None:
    """A constant stays, a line does among more planes, and near and far are treated alike."""

    def line(count: int) -> torch.Tensor:
        ends = (0, 1) if count > 1 else (0.5, 0.5)
        return torch.linspace(*ends, count)[:, None, None].expand(1, 2, count, 3, 4)

    constant = _interpolate(torch.ones_like(line(given)), planes)
    torch.testing.assert_close(constant, torch.ones_like(line(planes)))
    made = _interpolate(line(given), planes)
    torch.testing.assert_close(made + made.flip(2), torch.ones_like(made))
    if planes >= given > 1:
        torch.testing.assert_close(made, line(planes))


def test_dictionaries_are_shared_by_the_networks_of_a_process() -> None:
    one, other = (build_network(CONFIGS[name]) for name in ("dictionary", "factor"))
    assert one.products.table.data_ptr() == other.products.table.data_ptr()


@per_network
@pytest.mark.parametrize("case", ["silence", "certainty", "no noise"])
def test_gradients_are_finite_at_the_edges(name: str, case: str) -> None:
    network, scenes = trained(CONFIGS[name]), scenes_of()
    if case == "silence":  # R is zero for a factor, flat for a dictionary
        scenes = replace(scenes, snapshots=torch.zeros_like(scenes.snapshots))
    if case == "certainty":  # one point takes everything: R has rank 1, N - 1 equal eigenvalues
        with torch.no_grad():
            if name.startswith("gram"):
                sure = network.share
            else:
                unrolled = name.startswith("unrolled")
                sure = network.start.soften if unrolled else network.logits.sharpness
            sure.fill_(1e4)
    if case == "no noise":
        scenes = scenes_of(snr_db=300.0)
    made = network(scenes)
    spectral = spectrum(**made.spectral_input())
    loss = (made.nmse(scenes) + spectral.gap(2) + spectral.energy(2)).mean()
    loss.backward()
    assert torch.isfinite(loss)
    for parameter in network.parameters():
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()


@per_network
def test_every_parameter_takes_part(name: str) -> None:
    network, scenes = trained(CONFIGS[name]), scenes_of()
    network(scenes).nmse(scenes).mean().backward()
    for label, parameter in network.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.any(), label


def test_the_blend_stays_within_its_bound() -> None:
    blend = Blend(0.3)
    for logit in (-50.0, 0.0, 50.0):
        with torch.no_grad():
            blend.logit.fill_(logit)
        assert 0 <= float(blend().detach()) <= 0.3


def test_packing_hermitian_matrices_is_an_isometry() -> None:
    generator = torch.Generator().manual_seed(0)
    roots = torch.randn(2, 3, 6, 6, dtype=torch.complex128, generator=generator)
    one, other = roots + roots.mH
    inner = torch.einsum("bij,bij->b", one.conj(), other).real
    packed = (pack_hermitian(one) * pack_hermitian(other)).sum(-1)
    torch.testing.assert_close(packed, inner, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(unpack_hermitian(pack_hermitian(one)), one, rtol=0, atol=1e-15)


@per_network
def test_a_gain_of_all_codes_may_stand_in_the_channel(name: str) -> None:
    scenes = scenes_of()
    scenes = resimulated(scenes, codes=two_state_codes(scenes), snr_db=0.0)
    moved = replace(scenes, codes=scenes.codes / 8, channel=scenes.channel * 8)
    network = trained(CONFIGS[name])
    assert_same(network(moved), network(scenes), rtol=1e-6)


@pytest.mark.parametrize("gains", [(1.0, 1.0), (0.3, 1.0)])
def test_maps_are_back_projected_power_and_its_normaliser(gains: tuple[float, float]) -> None:
    """Against sum_l |aᴴ x_l|² and sum_l ‖Π_l a‖² with Π_l written out, up to a scale per map."""
    scenes = scenes_of()
    scenes = resimulated(scenes, codes=two_state_codes(scenes, gains), snr_db=0.0)
    table = steering_dictionary(SCENE, torch.float64)
    maps = power_maps(scenes, table.products())
    loading = fit_loading(channel_eigenmodes(scenes))[1]
    power = torch.einsum("gn,bln->blg", table.steering.conj(), lmmse(scenes)).abs().square()
    operators = scenes.channel.unsqueeze(1) * scenes.codes.unsqueeze(2)  # G_l
    eye = torch.eye(SCENE.num_antennas, dtype=torch.complex128)
    inverse = torch.linalg.inv(operators @ operators.mH + loading[:, None, None, None] * eye)
    back = operators.mH @ inverse @ operators @ table.steering.mT
    returned = back.abs().square().sum((1, 2))
    for logs, reference in ((maps.power, power.sum(1)), (maps.normaliser, returned)):
        shares = logs.exp() / logs.exp().sum(-1, keepdim=True)
        expected = reference / reference.sum(-1, keepdim=True)
        torch.testing.assert_close(shares, expected, rtol=1e-8, atol=1e-14)


def test_principal_components_are_the_best_approximation() -> None:
    """All of them: the covariance itself. Fewer: its best approximation (Eckart-Young)."""
    generator = torch.Generator().manual_seed(0)
    snapshots = torch.randn(3, 9, 5, dtype=torch.complex128, generator=generator)
    covariance = snapshots @ snapshots.mH
    whole = principal_components(snapshots, 5)
    torch.testing.assert_close(whole @ whole.mH, covariance, rtol=1e-10, atol=1e-10)
    few = principal_components(snapshots, 2)
    lost = torch.linalg.matrix_norm(covariance - few @ few.mH, ord=2)
    third = torch.linalg.svdvals(snapshots)[:, 2] ** 2
    torch.testing.assert_close(lost, third, rtol=1e-9, atol=0)
    assert torch.equal(principal_components(snapshots, 7)[..., 5:], whole[..., :2])


def test_a_single_source_is_found_by_an_untrained_network() -> None:
    """Without noise, the strongest eigenvector points to the source: networks start as maps.

    |uᴴa|² / N stays below 1 by the spread of the starting posterior over a beam.
    """
    scenes = scenes_of(SceneConfig(max_sources=1, num_snapshots=64), 40, snr_db=40.0)
    truth = true_factor(scenes)
    matrix = build_network(TrainConfig())(scenes).dense()
    strongest = torch.linalg.eigh(matrix).eigenvectors[..., -1:]
    assert (strongest.mH @ truth).abs().square().median() > 0.95


@pytest.mark.parametrize("order", ["before", "after"])
def test_the_white_floor_of_a_free_factor_has_a_share_that_its_norm_decides_after(order):
    """G = c S, no convolutions: the least eigenvalue of R, S of rank 5, is the floor's share / N:
    .1 / 1.1 before, .1 / (c² + .1) after."""
    network = build_network(CONFIGS[f"gram, {order}"])
    for scale in (0.5, 2.0):
        with torch.no_grad():
            network.share.copy_(torch.tensor([scale, 0.0]))
        made = network(scenes_of())
        least = torch.linalg.eigvalsh(made.matrix)[:, 0]
        power = 1.0 if order == "before" else scale**2
        share = FLOOR / (power + FLOOR) / SCENE.num_elements
        torch.testing.assert_close(least, torch.full_like(least, share), rtol=1e-9, atol=0)


def test_a_free_factor_fits_a_batch_that_no_mixture_need():
    """R of four scenes to NMSE below .05 in 150 steps: nothing but data binds it."""
    scenes = scenes_of(batch=4, snr_db=(0.0, 0.0))
    torch.manual_seed(0)
    network = build_network(CONFIGS["gram, after"])
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-2)
    for _ in range(150):
        optimizer.zero_grad()
        loss = network(scenes).nmse(scenes).mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05


@pytest.mark.parametrize("name", ["dictionary", "factor"])
def test_networks_learn_in_seconds(name: str) -> None:
    """60 steps beat the start and back-projection, paired, by five standard errors."""
    torch.set_default_dtype(torch.float32)
    config = replace(CONFIGS[name], network=replace(CONFIGS[name].network, width=16))
    torch.manual_seed(0)
    network, generator = build_network(config), torch.Generator().manual_seed(1)

    def draw(batch: int) -> Scenes:
        return simulate(
            config.scene, batch, snr_db=(-10.0, 4.0), generator=generator, device="cpu"
        )

    held_out = draw(512)

    def judge() -> Tensor:
        with torch.no_grad():
            return network(held_out).nmse(held_out)

    before = judge()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-2)
    for _ in range(60):
        scenes = draw(32)
        optimizer.zero_grad()
        network(scenes).nmse(scenes).mean().backward()
        optimizer.step()
    after = judge()
    measured = normalise(factor=lmmse(held_out).mT, eps_psd=0.0).nmse(held_out)
    for worse in (before, measured):
        gain = worse - after
        assert gain.mean() > 5 * gain.std() / len(gain) ** 0.5
