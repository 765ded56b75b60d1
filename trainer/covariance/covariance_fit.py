"""What snapshots say about powers on a dictionary: the likelihood's pull on every point.

    y_l ~ CN(0, p C_l),   C_l = G_l R G_lᴴ + λ I,   R = sum_g γ_g a_g a_gᴴ,   sum_g γ_g = 1

with λ the noise relative to the signal and p the scale of both. A back-projection asks what the
snapshots look like on the panel; this asks what they say that R does not say yet. With f = G_l a_g
and p at its best,

    num_g = sum_l |fᴴ C_l⁻¹ y_l|² / p,   den_g = sum_l fᴴ C_l⁻¹ f,   p = mean_lm y_lᴴ C_l⁻¹ y_l

num_g - den_g is the slope of the log likelihood in γ_g, and γ_g <- γ_g sqrt(num_g / den_g) for all
g never lowers it: the update of `sparse` (Sun, Babu and Palomar 2017, "Majorization-minimization
algorithms", section IV). The noise takes the same step,
λ <- λ sqrt(sum_l |C_l⁻¹ y_l|² / p sum_l tr C_l⁻¹). Neither noise nor scale need be known.

Nothing here is of size G x L: both are products of one N x N matrix per scene with the packed
dictionary,
    p num_g = a_gᴴ [sum_l q_l q_lᴴ] a_g,  q_l = G_lᴴ C_l⁻¹ y_l
    den_g   = a_gᴴ [sum_l G_lᴴ C_l⁻¹ G_l] a_g
G_l is formed, [L, M, N] per scene: products with all of it at once are the fast ones.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.linalg import hermitian_part, squared_norm
from trainer.scenes import Scenes

from .backprojection import whiten
from .dictionary import pack_hermitian

NOISE_FLOOR = 1e-3
"""Least λ that is looked for, -30 dB: below, C_l may be too ill conditioned for float32."""
LOG_RATIO_RANGE = 6.0
"""|log(num / den)| is cut here: a power that is wrong by 26 dB is wrong enough."""


class Observations(NamedTuple):
    """What was measured, in units of its own: whitened, peak of the snapshots 1, mean gain 1.

    Attributes:
        snapshots: y, [B, L, M].
        responses: G_l, [B, L, M, N], with tr G_l G_lᴴ = M.
    """

    snapshots: Tensor
    responses: Tensor

    @classmethod
    def of(cls, scenes: Scenes) -> "Observations":
        """Of a batch of scenes; λ is relative to the channel's mean gain from here on."""
        snapshots, channel = whiten(scenes)
        peak = snapshots.abs().amax((-2, -1), keepdim=True)
        # abs().square(), not `squared_magnitude`: recorded trials replay bit for bit
        gain = channel.abs().square().sum((-2, -1), keepdim=True) / channel.shape[-2]
        tiny = torch.finfo(peak.dtype).tiny
        channel = channel / gain.clamp(min=tiny).sqrt()
        responses = channel.unsqueeze(1) * scenes.codes.unsqueeze(2)
        return cls(snapshots / peak.clamp(min=tiny), responses)


class QuadraticForms(NamedTuple):
    """What every step of R and the noise is made of, per scene.

    Attributes:
        whitened: C_l⁻¹ y_l, [B, L, M].
        back: q_l = G_lᴴ C_l⁻¹ y_l, as columns, [B, N, L].
        seen: sum_l G_lᴴ C_l⁻¹ G_l, [B, N, N].
        traces: sum_l tr C_l⁻¹, [B].
    """

    whitened: Tensor
    back: Tensor
    seen: Tensor
    traces: Tensor

    @classmethod
    def of(cls, observed: Observations, covariance: Tensor, noise: Tensor) -> "QuadraticForms":
        """For C_l = G_l R G_lᴴ + noise · I, R [B, N, N], noise [B]."""
        snapshots, responses = observed
        inverse = inverse_covariances(observed, covariance, noise)
        seen = responses.flatten(1, 2).mH @ (inverse @ responses).flatten(1, 2)
        whitened = (inverse @ snapshots.unsqueeze(-1)).squeeze(-1)
        back = (responses.mH @ whitened.unsqueeze(-1)).squeeze(-1).mT
        traces = inverse.diagonal(dim1=-2, dim2=-1).real.sum((-2, -1))
        return cls(whitened, back, seen, traces)

    @property
    def noise_power(self) -> Tensor:
        """sum_l |C_l⁻¹ y_l|², [B]."""
        return squared_norm(self.whitened)


class LikelihoodGradient(NamedTuple):
    """What the likelihood says of R and λ; natural logarithms.

    Attributes:
        ratio: [B, G], log(num / den); 0 where the fit is good.
        information: [B, G], log(den / L M): how well the data see a point, given the rest.
        noise: [B], log of the noise's num / den.
    """

    ratio: Tensor
    information: Tensor
    noise: Tensor


def likelihood_gradient(
    observed: Observations, covariance: Tensor, log_noise: Tensor, outer: Tensor
) -> LikelihoodGradient:
    """The likelihood's pull on every point of the dictionary.

    Args:
        covariance: R, [B, N, N], diagonal about 1.
        log_noise: log λ, [B].
        outer: of the dictionary, [G, N²].
    """
    forms = QuadraticForms.of(observed, covariance, log_noise.exp())
    tiny = torch.finfo(log_noise.dtype).tiny
    energy = (observed.snapshots.conj() * forms.whitened).real.mean((-2, -1))
    scale = energy.clamp(min=tiny)
    explained = forms.back @ forms.back.mH / scale[:, None, None]
    packed = pack_hermitian(torch.stack([explained, forms.seen]))
    numerator, denominator = packed @ outer.mT
    denominator = denominator.clamp(min=tiny)
    return LikelihoodGradient(
        ratio=_log_ratio(numerator, denominator),
        information=(denominator / observed.snapshots[0].numel()).log(),
        noise=_log_ratio(forms.noise_power / scale, forms.traces),
    )


def inverse_covariances(observed: Observations, covariance: Tensor, noise: Tensor) -> Tensor:
    """C_l⁻¹, [B, L, M, M]; NaN for a scene whose C_l is not positive definite, without waiting
    for the device to find out."""
    responses = observed.responses
    size = responses.shape[1:3]
    mixed = (responses.flatten(1, 2) @ covariance).unflatten(1, size) @ responses.mH
    eye = torch.eye(size[1], dtype=mixed.dtype, device=mixed.device)
    loaded = hermitian_part(mixed) + noise[:, None, None, None] * eye
    factor, failed = torch.linalg.cholesky_ex(loaded)
    factor = factor.where(failed[..., None, None] == 0, torch.nan)
    return torch.cholesky_inverse(factor)


def update_noise(log_noise: Tensor, powers: Tensor, seen: LikelihoodGradient) -> Tensor:
    """log λ after a majorise-minimise step of noise and powers: [B].

    λ is relative to the signal, whose power becomes sum_g γ_g sqrt(num_g / den_g).
    """
    signal = (powers * (seen.ratio / 2).exp()).sum(-1)
    return log_noise + seen.noise / 2 - signal.log()


def _log_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    tiny = torch.finfo(numerator.dtype).tiny
    ratio = numerator.clamp(min=tiny).log() - denominator.clamp(min=tiny).log()
    return ratio.clamp(-LOG_RATIO_RANGE, LOG_RATIO_RANGE)
