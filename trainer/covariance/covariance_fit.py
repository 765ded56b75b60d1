"""Covariance fitting: the gradient of the snapshots' likelihood in powers on a dictionary.

    y_l ~ CN(0, p C_l),   C_l = G_l R G_lᴴ + λ I,   R = sum_g γ_g a_g a_gᴴ,   sum_g γ_g = 1

with λ the noise relative to the signal and p the scale of both. With f_gl = G_l a_g and p at its
maximum-likelihood value,

    num_g = sum_l |f_glᴴ C_l⁻¹ y_l|² / p,   den_g = sum_l f_glᴴ C_l⁻¹ f_gl,
    p     = mean_lm y_lᴴ C_l⁻¹ y_l

num_g - den_g is the derivative of the log likelihood in γ_g, and the update
γ_g <- γ_g sqrt(num_g / den_g) of all g never lowers the likelihood (Sun, Babu and Palomar 2017,
"Majorization-minimization algorithms", section IV). The noise is updated likewise,
λ <- λ sqrt(sum_l |C_l⁻¹ y_l|² / p sum_l tr C_l⁻¹). Neither noise nor scale need be known.

Nothing of size G x L is formed: numerators and denominators are products of one N x N matrix per
scene with the dictionary's outer products,

    p num_g = a_gᴴ [sum_l q_l q_lᴴ] a_g,  q_l = G_lᴴ C_l⁻¹ y_l
    den_g   = a_gᴴ [sum_l G_lᴴ C_l⁻¹ G_l] a_g

G_l is formed, [L, M, N] per scene: products with all of it at once are fastest.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.linalg import hermitian_part, squared_norm
from trainer.scenes import Scenes

from .backprojection import whiten
from .products import Products

NOISE_FLOOR = 1e-3
"""Smallest λ, -30 dB: below, C_l may be too ill conditioned for float32."""
LOG_RATIO_RANGE = 6.0
"""Bound of |log(num / den)|: 26 dB."""


class Observations(NamedTuple):
    """Whitened measurements, scaled to a peak of the snapshots of 1 and a mean channel gain of 1.

    Attributes:
        snapshots: y, [B, L, M].
        responses: G_l, [B, L, M, N], with a mean over l of tr G_l G_lᴴ of M.
    """

    snapshots: Tensor
    responses: Tensor

    @classmethod
    def from_scenes(cls, scenes: Scenes) -> "Observations":
        """Return those of a batch; λ is then relative to the channel's mean gain."""
        data = whiten(scenes)
        snapshots, channel, _ = data
        peak = snapshots.abs().amax((-2, -1), keepdim=True)
        # not `squared_magnitude`: recorded trainings replay bit for bit
        gain = data.mean_channel.abs().square().sum((-2, -1), keepdim=True) / channel.shape[-2]
        tiny = torch.finfo(peak.dtype).tiny
        scaled = data._replace(channel=channel / gain.clamp(min=tiny).sqrt())
        return cls(snapshots / peak.clamp(min=tiny), scaled.responses)


class QuadraticForms(NamedTuple):
    """The terms of numerators and denominators, per scene.

    Attributes:
        weighted: C_l⁻¹ y_l, [B, L, M].
        back_projected: q_l = G_lᴴ C_l⁻¹ y_l, as columns, [B, N, L].
        information: sum_l G_lᴴ C_l⁻¹ G_l, [B, N, N].
        traces: sum_l tr C_l⁻¹, [B].
    """

    weighted: Tensor
    back_projected: Tensor
    information: Tensor
    traces: Tensor

    @property
    def noise_power(self) -> Tensor:
        """sum_l |C_l⁻¹ y_l|², [B]."""
        return squared_norm(self.weighted)


def quadratic_forms(
    observations: Observations, covariance: Tensor, noise: Tensor
) -> QuadraticForms:
    """Return the forms of C_l = G_l R G_lᴴ + noise · I, R [B, N, N], noise [B]."""
    snapshots, responses = observations
    inverse = inverse_covariances(observations, covariance, noise)
    information = responses.flatten(1, 2).mH @ (inverse @ responses).flatten(1, 2)
    weighted = (inverse @ snapshots.unsqueeze(-1)).squeeze(-1)
    back_projected = (responses.mH @ weighted.unsqueeze(-1)).squeeze(-1).mT
    traces = inverse.diagonal(dim1=-2, dim2=-1).real.sum((-2, -1))
    return QuadraticForms(weighted, back_projected, information, traces)


class LikelihoodGradient(NamedTuple):
    """Gradient of the likelihood in R and λ, as ratios; natural logarithms.

    Attributes:
        log_ratio: log(num / den), [B, G]; 0 at a stationary point.
        log_information: log(den / L M), [B, G]: how well the data determine the power of a point.
        noise_log_ratio: log(num / den) of the noise, [B].
    """

    log_ratio: Tensor
    log_information: Tensor
    noise_log_ratio: Tensor


def likelihood_gradient(
    observations: Observations, covariance: Tensor, log_noise: Tensor, products: Products
) -> LikelihoodGradient:
    """Return the gradient at every point of the dictionary.

    Args:
        covariance: R, [B, N, N], with a mean diagonal of about 1.
        log_noise: log λ, [B].
        products: of the dictionary.
    """
    forms = quadratic_forms(observations, covariance, log_noise.exp())
    tiny = torch.finfo(log_noise.dtype).tiny
    energy = (observations.snapshots.conj() * forms.weighted).real.mean((-2, -1))
    scale = energy.clamp(min=tiny)
    explained = forms.back_projected @ forms.back_projected.mH / scale[:, None, None]
    numerator, denominator = products.power_map(torch.stack([explained, forms.information]))
    denominator = denominator.clamp(min=tiny)
    return LikelihoodGradient(
        log_ratio=_log_ratio(numerator, denominator),
        log_information=(denominator / observations.snapshots[0].numel()).log(),
        noise_log_ratio=_log_ratio(forms.noise_power / scale, forms.traces),
    )


def inverse_covariances(observations: Observations, covariance: Tensor, noise: Tensor) -> Tensor:
    """Return C_l⁻¹, [B, L, M, M]; NaN for a scene with a C_l that is not positive definite."""
    responses = observations.responses
    size = responses.shape[1:3]
    mixed = (responses.flatten(1, 2) @ covariance).unflatten(1, size) @ responses.mH
    eye = torch.eye(size[1], dtype=mixed.dtype, device=mixed.device)
    loaded = hermitian_part(mixed) + noise[:, None, None, None] * eye
    # `cholesky` raises for the whole batch, and waits for the device to do so
    factor, failed = torch.linalg.cholesky_ex(loaded)
    factor = factor.where(failed[..., None, None] == 0, torch.nan)
    return torch.cholesky_inverse(factor)


def update_noise(log_noise: Tensor, powers: Tensor, gradient: LikelihoodGradient) -> Tensor:
    """Return log λ after a majorise-minimise step of noise and powers: [B].

    λ is relative to the signal, whose power becomes sum_g γ_g sqrt(num_g / den_g).
    """
    signal = (powers * (gradient.log_ratio / 2).exp()).sum(-1)
    return log_noise + gradient.noise_log_ratio / 2 - signal.log()


def _log_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    tiny = torch.finfo(numerator.dtype).tiny
    ratio = numerator.clamp(min=tiny).log() - denominator.clamp(min=tiny).log()
    return ratio.clamp(-LOG_RATIO_RANGE, LOG_RATIO_RANGE)
