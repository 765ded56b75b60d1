"""Laws of the covariance type: invariances of normalisation, loading and blending."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tests.matrices import true_covariance
from trainer.config import SceneConfig
from trainer.covariance.covariance import (
    Covariance,
    blend_factors,
    normalise,
    signal_basis,
    steering_matrix,
    true_factor,
    unit_trace,
)
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import simulate
from trainer.spectral.decomposition import spectrum

SCENE = SceneConfig(num_horizontal=4, num_vertical=3, num_antennas=5, num_snapshots=6)
BATCH, ELEMENTS, RANK = 7, 12, 4


def scenes_of(scene: SceneConfig = SCENE, num_sources: int | None = None) -> Scenes:
    return simulate(
        scene,
        BATCH,
        snr_db=0.0,
        num_sources=num_sources,
        generator=torch.Generator().manual_seed(3),
        device="cpu",
        dtype=torch.complex128,
    )


def random_factor(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.complex128, generator=generator)


def held(covariance: Covariance) -> Tensor:
    """Return the one form that is held."""
    forms = [f for f in (covariance.matrix, covariance.factor) if f is not None]
    assert len(forms) == 1
    return forms[0]


def test_normalise_hermitises_then_scales_then_loads() -> None:
    matrix = random_factor(BATCH, ELEMENTS, ELEMENTS) + 9 * torch.eye(ELEMENTS)
    made = normalise(matrix=matrix, eps_psd=0.24)
    hermitian = (matrix + matrix.mH) / 2
    trace = torch.einsum("bii->b", hermitian).real
    eye = torch.eye(ELEMENTS, dtype=torch.complex128)
    expected = hermitian / trace[:, None, None] + 0.24 / ELEMENTS * eye
    torch.testing.assert_close(made.dense(), expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(made.shift, torch.full((BATCH,), 0.02, dtype=torch.float64))


@pytest.mark.parametrize("scale", [1e-4, 1e5])
def test_the_scale_of_r_does_not_matter(scale: float) -> None:
    factor = random_factor(BATCH, ELEMENTS, RANK)
    for one, other in (
        (normalise(factor=factor, eps_psd=0.1), normalise(factor=scale * factor, eps_psd=0.1)),
        (
            normalise(matrix=factor @ factor.mH, eps_psd=0.1),
            normalise(matrix=scale * (factor @ factor.mH), eps_psd=0.1),
        ),
    ):
        torch.testing.assert_close(one.dense(), other.dense(), rtol=1e-10, atol=1e-14)


def test_both_forms_are_the_same_covariance() -> None:
    scenes, factor = scenes_of(), random_factor(BATCH, ELEMENTS, RANK)
    thin = normalise(factor=factor, eps_psd=1e-3)
    dense = normalise(matrix=factor @ factor.mH, eps_psd=1e-3)
    torch.testing.assert_close(thin.dense(), dense.dense(), rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(thin.nmse(scenes), dense.nmse(scenes), rtol=1e-10, atol=0)
    torch.testing.assert_close(
        spectrum(**thin.spectral_input()).gap(2),
        spectrum(**dense.spectral_input()).gap(2),
        rtol=1e-10,
        atol=1e-14,
    )


def test_the_factor_is_defined_up_to_a_unitary() -> None:
    scenes, factor = scenes_of(), random_factor(BATCH, ELEMENTS, RANK)
    unitary = torch.linalg.qr(random_factor(RANK, RANK, seed=1)).Q
    one, other = (normalise(factor=f, eps_psd=0.0) for f in (factor, factor @ unitary))
    torch.testing.assert_close(one.nmse(scenes), other.nmse(scenes), rtol=1e-10, atol=0)


@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_the_true_factor_squares_to_the_true_covariance(correlation: float) -> None:
    scenes = scenes_of(replace(SCENE, power_spread_db=6.0, source_correlation=correlation))
    factor = true_factor(scenes)
    torch.testing.assert_close(factor @ factor.mH, true_covariance(scenes), rtol=1e-10, atol=1e-14)


def test_nmse_is_the_relative_squared_frobenius_error_whatever_the_loading() -> None:
    scenes, matrix = scenes_of(), unit_trace(_squared(random_factor(BATCH, ELEMENTS, RANK)))
    truth = true_covariance(scenes)
    expected = _norms(matrix - truth) / _norms(truth)
    for eps in (0.0, 0.5):
        measured = normalise(matrix=matrix, eps_psd=eps).nmse(scenes)
        torch.testing.assert_close(measured, expected, rtol=1e-10, atol=0)
    exact = normalise(factor=true_factor(scenes), eps_psd=0.1).nmse(scenes)
    torch.testing.assert_close(exact, torch.zeros_like(exact), rtol=0, atol=1e-14)


def test_nmse_of_a_flat_covariance_has_a_closed_form() -> None:
    """‖I/N - R‖² = 1/N - 2/N + ‖R‖² for trace 1; one source has ‖R‖ = 1."""
    flat = torch.eye(ELEMENTS, dtype=torch.complex128).expand(BATCH, -1, -1)
    nmse = normalise(matrix=flat, eps_psd=0.0).nmse(scenes_of(num_sources=1))
    torch.testing.assert_close(nmse, torch.full_like(nmse, 1 - 1 / ELEMENTS), rtol=1e-10, atol=0)


def test_nmse_of_a_scene_without_sources_is_finite() -> None:
    made = normalise(factor=random_factor(BATCH, ELEMENTS, RANK), eps_psd=0.0)
    torch.testing.assert_close(
        made.nmse(scenes_of(num_sources=0)), _norms(made.dense()), rtol=1e-10, atol=0
    )


def test_blending_mixes_trace_one_covariances() -> None:
    learned, measured = (random_factor(BATCH, ELEMENTS, n, seed=n) for n in (RANK, 6))
    share = torch.tensor(0.3, dtype=torch.float64)
    blended = blend_factors(learned, measured, share)
    expected = 0.7 * unit_trace(_squared(learned)) + 0.3 * unit_trace(_squared(measured))
    torch.testing.assert_close(_squared(blended), expected, rtol=1e-10, atol=1e-14)
    grown = blend_factors(1e3 * learned, measured, share)
    torch.testing.assert_close(grown, blended, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("num_sources", [None, 1, 2])
def test_the_signal_basis_is_orthonormal_and_holds_the_sources(num_sources: int | None) -> None:
    scenes = scenes_of(num_sources=num_sources)
    basis, steering = signal_basis(scenes), steering_matrix(scenes)
    active = scenes.sources.active
    identity = torch.diag_embed(active.to(basis.dtype))
    torch.testing.assert_close(basis.mH @ basis, identity, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(basis @ (basis.mH @ steering), steering, rtol=1e-10, atol=1e-12)
    assert not basis.mT[~active].any()


def edge_cases() -> dict[str, Callable[[], Covariance]]:
    def leaf(tensor: Tensor) -> Tensor:
        return tensor.to(torch.complex64).expand(BATCH, -1, -1).clone().requires_grad_()

    def blended(share: float) -> Covariance:
        zero, measured = leaf(torch.zeros(ELEMENTS, RANK)), leaf(torch.eye(ELEMENTS)[:, :6])
        blend = torch.tensor(share, requires_grad=True)
        return normalise(factor=blend_factors(zero, measured, blend), eps_psd=1e-4)

    return {
        "zero factor": lambda: normalise(factor=leaf(torch.zeros(ELEMENTS, RANK)), eps_psd=1e-4),
        "zero matrix": lambda: normalise(
            matrix=leaf(torch.zeros(ELEMENTS, ELEMENTS)), eps_psd=1e-4
        ),
        "zero factor, blended": lambda: blended(0.3),
        "zero factor, no blend": lambda: blended(0.0),
        "rank 1 factor": lambda: normalise(factor=leaf(torch.ones(ELEMENTS, RANK)), eps_psd=0.0),
        "rank 1 matrix": lambda: normalise(
            matrix=leaf(torch.ones(ELEMENTS, ELEMENTS)), eps_psd=0.0
        ),
        "equal eigenvalues": lambda: normalise(matrix=leaf(torch.eye(ELEMENTS)), eps_psd=0.0),
        "equal singular values": lambda: normalise(
            factor=leaf(torch.eye(ELEMENTS)[:, :RANK]), eps_psd=0.0
        ),
    }


@pytest.mark.parametrize("case", edge_cases())
def test_gradients_stay_finite_where_covariances_degenerate(case: str) -> None:
    """Gradients of NMSE and eigengap with respect to the output of a network."""
    made = edge_cases()[case]()
    scenes = simulate(
        SCENE, BATCH, snr_db=0.0, generator=torch.Generator().manual_seed(0), device="cpu"
    )
    spectral = spectrum(**made.spectral_input())
    loss = made.nmse(scenes).sum() + spectral.gap(2).sum() + spectral.ratio(2).sum()
    loss.backward()
    assert torch.isfinite(loss)
    leaves = _leaves(held(made))
    assert leaves
    for leaf in leaves:
        assert leaf.grad is not None
        assert torch.isfinite(
            torch.view_as_real(leaf.grad) if leaf.is_complex() else leaf.grad
        ).all()


def test_one_form_exactly_must_be_given() -> None:
    both = random_factor(BATCH, ELEMENTS, ELEMENTS)
    with pytest.raises(ValueError, match="got both"):
        normalise(matrix=both, factor=both, eps_psd=0.0)
    with pytest.raises(ValueError, match="got none"):
        normalise(eps_psd=0.0)


def _squared(factor: Tensor) -> Tensor:
    return factor @ factor.mH


def _norms(matrix: Tensor) -> Tensor:
    return matrix.abs().square().sum((-2, -1))


def _leaves(tensor: Tensor) -> list[Tensor]:
    """Return the leaves of the graph that made `tensor`."""
    found, queue = [], [tensor.grad_fn]
    seen = set()
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        queue.extend(parent for parent, _ in node.next_functions)
    return found
