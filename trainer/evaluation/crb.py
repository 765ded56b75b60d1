"""Cramér-Rao bounds on azimuth, elevation, range and inverse range, for batches of scenes.

Stochastic (unconditional) bound: y_l ~ CN(0, C_l) independent, C_l = B_l P B_lᴴ + σ² Q with
B_l = G_l A; unknown are three coordinates and the power of every source, and σ². By the
Slepian-Bangs formula (Kay 1993, Estimation Theory, eq. 15.52)

    F_pq = sum_l tr(C_l⁻¹ ∂C_l/∂p C_l⁻¹ ∂C_l/∂q)

Every ∂C_l/∂p but that of σ² has the form d vᴴ + v dᴴ with v = B P e_k, and d = G_l ∂a_k for a
coordinate, d = b_k / 2P_kk for a power, so traces of M x M products reduce to inner products:

    F_pq = sum_l 2 Re[(v_pᴴ C⁻¹ d_q)(v_qᴴ C⁻¹ d_p) + (d_qᴴ C⁻¹ d_p)(v_pᴴ C⁻¹ v_q)]

Deterministic (conditional) bound: the amplitudes s_l are unknown too (Stoica and Nehorai 1989,
"MUSIC, maximum likelihood, and Cramer-Rao bound", theorem 4.1), with one projector per snapshot:

    F_pq = sum_l (2/σ²) Re[d_pᴴ (I - B_l B_l⁺) d_q s_p* s_q]

Coloured noise is whitened first. All in float64. An information matrix that is singular, up to
the rounding of its own entries, bounds nothing: such a coordinate is unidentifiable, its bound
infinite.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from trainer.estimation import SINGULAR, invert_information
from trainer.linalg import squared_magnitude
from trainer.scenes import Scenes, respond, steering_derivatives, steering_vector


@dataclass(frozen=True)
class Bound:
    """Least variances of unbiased estimates, float64, [B, K_max]; infinite where unidentifiable.

    Attributes:
        azimuth, elevation: [rad²].
        range_m: [m²].
        inverse_range: [1/m²].
        identifiable: there is a source, and all its coordinates are identifiable.
    """

    azimuth: Tensor
    elevation: Tensor
    range_m: Tensor
    inverse_range: Tensor
    identifiable: Tensor

    @property
    def angle(self) -> Tensor:
        """Bound on the mean square of sqrt(d_azimuth² + d_elevation²) [rad²]."""
        return self.azimuth + self.elevation


def stochastic_crb(scenes: Scenes) -> Bound:
    """Return the bound for Gaussian sources of unknown power in noise of unknown variance.

    Raises:
        ValueError: if the scenes do not know their sources or their noise.
    """
    model = _Model(scenes)
    sources = model.scenes.sources
    batch, most = sources.power.shape
    covariance = sources.covariance.to(model.steering.dtype).unsqueeze(1)  # P, [B, 1, K, K]
    loaded = model.steering @ covariance  # v, [B, L, M, K]
    noise = torch.eye(scenes.num_antennas, dtype=loaded.dtype, device=loaded.device)
    total = loaded @ model.steering.mH + model.noise_variance[:, None, None, None] * noise
    root, failed = torch.linalg.cholesky_ex(total)
    # noise below the signal's roundoff: no information that could be computed
    root = root.where((failed == 0)[..., None, None], noise)
    known = (failed == 0).all(1).unsqueeze(-1)
    power = sources.power.where(sources.active, torch.ones_like(sources.power))
    by_power = model.steering / (2 * power)[:, None, None, :]
    # d, coordinate-major: azimuths, elevations, ranges, powers
    slopes = torch.cat([*model.slopes.unbind(2), by_power], dim=-1)
    slopes = torch.linalg.solve_triangular(root, slopes, upper=False)
    loaded = torch.linalg.solve_triangular(root, loaded, upper=False).repeat(1, 1, 1, 4)
    inverse = torch.linalg.solve_triangular(root, noise.expand_as(root), upper=False)

    cross = loaded.mH @ slopes  # [p, q] = v_pᴴ C⁻¹ d_q
    product = (slopes.mH @ slopes).mT * (loaded.mH @ loaded)
    information = 2 * (cross * cross.mT + product).real.sum(1)
    scale = 2 * (squared_magnitude(cross) + product.abs()).diagonal(dim1=-2, dim2=-1).sum(1)
    # σ²: ∂C/∂σ² = I after whitening
    precision = inverse @ inverse.mH  # Tᵢ Tᵢᴴ, similar to C⁻¹
    by_noise = 2 * (loaded.conj() * (precision @ slopes)).sum((1, 2)).real
    own = squared_magnitude(precision).sum((1, 2, 3))
    full = information.new_zeros(batch, 4 * most + 1, 4 * most + 1)
    full[:, :-1, :-1] = information
    full[:, :-1, -1] = full[:, -1, :-1] = by_noise
    full[:, -1, -1] = own
    scale = torch.cat([scale, own.unsqueeze(-1)], dim=-1)
    return _bound(full, scale, model.scenes, sources.active & known)


def deterministic_crb(scenes: Scenes, amplitudes: Tensor | None = None) -> Bound:
    """Return the bound for sources of unknown amplitudes in noise of unknown variance.

    Args:
        amplitudes: s, [B, L, K_max]; by default the information is averaged over them, s_p* s_q
            replaced by its expectation.

    Raises:
        ValueError: if the scenes do not know their sources or their noise.
    """
    model = _Model(scenes)
    sources = model.scenes.sources
    if amplitudes is None:
        gram = sources.covariance.to(model.steering.dtype).unsqueeze(1)
    else:
        held = amplitudes.to(model.steering.dtype) * sources.active.unsqueeze(1)
        gram = held.unsqueeze(-1).conj() * held.unsqueeze(-2)
    slopes = torch.cat(list(model.slopes.unbind(2)), dim=-1)  # [B, L, M, 3K]
    basis, separable = _range_basis(model.steering)
    weight = 2 / model.noise_variance[:, None, None, None] * gram.repeat(1, 1, 3, 3)
    outside = slopes - basis @ (basis.mH @ slopes)
    information = (weight * (outside.mH @ outside)).real.sum(1)
    scale = (weight * (slopes.mH @ slopes)).real.sum(1).diagonal(dim1=-2, dim2=-1)
    return _bound(information, scale, model.scenes, separable)


class _Model:
    """B_l and its derivatives in coordinates in which the noise is white, complex128.

    Attributes:
        scenes: the scenes in complex128.
        steering: B, [B, L, M, K].
        slopes: ∂b_k/∂(azimuth, elevation, range), [B, L, 3, M, K].
        noise_variance: σ², [B].
    """

    def __init__(self, scenes: Scenes) -> None:
        scenes = scenes.to(dtype=torch.complex128)
        if not bool(torch.isfinite(scenes.noise_variance).all()):
            raise ValueError(
                "`noise_variance` must be known for a bound, but some of it is not finite. "
                "Add the array noise_variance to the recording."
            )
        sources, channel = scenes.sources, scenes.channel
        if scenes.noise_covariance is not None:
            root = torch.linalg.cholesky(scenes.noise_covariance)
            channel = torch.linalg.solve_triangular(root, channel, upper=False)
        place = scenes.panel, sources.azimuth, sources.elevation, sources.range_m
        active = sources.active.unsqueeze(-1)
        columns = steering_vector(*place) * active
        derivatives = steering_derivatives(*place) * active.unsqueeze(-1)
        vectors = torch.cat([columns.unsqueeze(2), derivatives], dim=2)  # [B, K, 4, N]
        echoes = respond(channel, scenes.codes, vectors.transpose(1, 2).flatten(1, 2))
        echoes = echoes.unflatten(-1, (4, -1)).movedim(-2, 2)  # [B, L, 4, M, K]
        self.scenes = scenes
        self.steering = echoes[:, :, 0]
        self.slopes = echoes[:, :, 1:]
        self.noise_variance = scenes.noise_variance


def _range_basis(steering: Tensor) -> tuple[Tensor, Tensor]:
    """Find the directions, and the sources, that the amplitudes of a snapshot can be told from.

    Returns:
        Orthonormal basis of the range of every [..., M, K] matrix, zero columns where rank < K;
        and [B, K], True for sources whose column is, in any snapshot, no combination of others.
        Where only a sum of amplitudes is identifiable, the coordinates are not.
    """
    norm = steering.norm(dim=-2, keepdim=True)
    unit = steering / norm.where(norm > 0, torch.ones_like(norm))
    left, values, right = torch.linalg.svd(unit, full_matrices=False)
    kept = values > SINGULAR
    combined = 1 - (squared_magnitude(right) * kept.unsqueeze(-1)).sum(-2)
    return left * kept.unsqueeze(-2), (combined < SINGULAR).any(1)


def _bound(information: Tensor, scale: Tensor, scenes: Scenes, separable: Tensor) -> Bound:
    """Return the bounds in the inverse of an information matrix.

    Args:
        information: F, [B, Q, Q], coordinate-major: K azimuths, K elevations, K ranges, others.
        scale: [B, Q], as `invert_information` takes it.
        separable: [B, K], sources that have a bound if the information is regular.
    """
    sources = scenes.sources
    most = sources.active.shape[-1]
    variance, identifiable = invert_information(information, scale)
    known = identifiable[:, : 3 * most].unflatten(-1, (3, most))
    known = known & (sources.active & separable).unsqueeze(1)
    azimuth, elevation, range_m = torch.where(
        known, variance[:, : 3 * most].unflatten(-1, (3, most)), torch.inf
    ).unbind(1)
    return Bound(azimuth, elevation, range_m, range_m / sources.range_m**4, known.all(1))
