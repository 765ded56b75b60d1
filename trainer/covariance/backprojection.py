"""Back-projection of the snapshots to the panel, and its sample covariance.

A snapshot y_l = G_l x_l + n_l, G_l = H diag(c_l), measures M of the panel's N dimensions. Codes
have unit modulus, so G_l G_lᴴ = H Hᴴ for every l: one M x M eigendecomposition per scene serves
all snapshots,
    pinv    x_l = c_l* ∘ Hᴴ (H Hᴴ)⁺ y_l             least norm
    LMMSE   x_l = c_l* ∘ Hᴴ (H Hᴴ + λI)⁻¹ y_l       λ = σ²/p, for the prior x_l ~ CN(0, p I)
(Kay 1993, Estimation Theory, eq. 12.26). Neither depends on the phase of a snapshot's code.

p and σ² are estimated from the snapshots alone. Steering entries have unit modulus, so codes with
independent phases make E y yᴴ = p H Hᴴ + σ² I, whose eigenvectors are known: the likelihood is
maximised over λ by a search in one dimension, and p follows in closed form.

Coloured noise of known covariance is whitened first; H is then the whitened channel.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.scenes import Scenes

from .covariance import Covariance, normalise

RANK_TOLERANCE = 1e-6
"""Eigenvalues of H Hᴴ below this times the largest count as zero in the pseudo-inverse."""
LOADING_RANGE = (-6.0, 6.0)
"""log10 of the smallest and largest λ / mean eigenvalue of H Hᴴ that are tried."""
LOADING_STEPS = 121
"""Values of λ that are tried: ten per decade, far finer than its standard error."""


class Whitened(NamedTuple):
    """Measurements with white noise: y [B, L, M], channel H [B, M, N] and codes c [B, L, N]."""

    snapshots: Tensor
    channel: Tensor
    codes: Tensor

    @property
    def responses(self) -> Tensor:
        """G_l = H diag(c_l), [B, L, M, N]."""
        return self.channel.unsqueeze(1) * self.codes.unsqueeze(2)

    def to(self, dtype: torch.dtype) -> "Whitened":
        """Return the same measurements in another precision."""
        return Whitened(*(x.to(dtype) for x in self))


class ChannelEigenmodes(NamedTuple):
    """Eigendecomposition H Hᴴ = U diag(gain) Uᴴ, with the snapshots in its coordinates.

    Attributes:
        gain: [B, M], ascending, never negative.
        coordinates: Uᴴ y_l, [B, L, M].
        lift: Hᴴ U, [B, N, M].
    """

    gain: Tensor
    coordinates: Tensor
    lift: Tensor


def whiten(scenes: Scenes) -> Whitened:
    """Return the measurements of a batch in coordinates in which the noise is white."""
    snapshots, channel = scenes.snapshots, scenes.channel
    if scenes.noise_covariance is not None:
        root = torch.linalg.cholesky(scenes.noise_covariance)
        snapshots = torch.linalg.solve_triangular(root, snapshots.mT, upper=False).mT
        channel = torch.linalg.solve_triangular(root, channel, upper=False)
    return Whitened(snapshots, channel, scenes.codes)


def channel_eigenmodes(scenes: Scenes) -> ChannelEigenmodes:
    """Return the eigendecomposition that all back-projections of a batch share."""
    snapshots, channel, _ = whiten(scenes)
    gain, modes = torch.linalg.eigh(channel @ channel.mH)
    return ChannelEigenmodes(gain.clamp(min=0), snapshots @ modes.conj(), channel.mH @ modes)


def fit_loading(modes: ChannelEigenmodes) -> tuple[Tensor, Tensor]:
    """Return maximum-likelihood p and λ = σ²/p of E y yᴴ = p (H Hᴴ + λ I): [B] each.

    With z_m the mean power in mode m, -log likelihood / L = sum_m log(p (g_m + λ)) + z_m / (p (g_m
    + λ)); given λ it is least at p = mean_m z_m / (g_m + λ).
    """
    # abs().square(), not `squared_magnitude`: recorded trials replay bit for bit
    power = modes.coordinates.abs().square().mean(-2)
    exponent = torch.linspace(
        *LOADING_RANGE, LOADING_STEPS, dtype=power.dtype, device=power.device
    )
    mean = modes.gain.mean(-1, keepdim=True)
    # a dead channel returns noise alone: any λ but 0 is right
    loading = mean.where(mean > 0, torch.ones_like(mean)) * 10**exponent
    variance = modes.gain.unsqueeze(-2) + loading.unsqueeze(-1)
    signal = (power.unsqueeze(-2) / variance).mean(-1)
    # with no power at all, every λ fits equally well
    cost = variance.log().mean(-1) + signal.clamp(min=torch.finfo(power.dtype).tiny).log()
    best = cost.argmin(-1, keepdim=True)
    return signal.gather(-1, best).squeeze(-1), loading.gather(-1, best).squeeze(-1)


def pinv(scenes: Scenes) -> Tensor:
    """Return the least-norm back-projection of every snapshot: [B, L, N]."""
    modes = channel_eigenmodes(scenes)
    kept = modes.gain > RANK_TOLERANCE * modes.gain.amax(-1, keepdim=True)
    inverse = torch.where(kept, 1 / modes.gain.where(kept, torch.ones_like(modes.gain)), 0)
    return _lift(modes, inverse, scenes.codes)


def lmmse(scenes: Scenes, loading: Tensor | None = None) -> Tensor:
    """Return the linear minimum-mean-square-error back-projection of every snapshot: [B, L, N].

    Args:
        loading: λ, [B]; by default estimated from the snapshots.
    """
    modes = channel_eigenmodes(scenes)
    if loading is None:
        _, loading = fit_loading(modes)
    return _lift(modes, 1 / (modes.gain + loading.unsqueeze(-1)), scenes.codes)


def sample_covariance(back_projected: Tensor) -> Covariance:
    """Return sum_l x_l x_lᴴ of snapshots [B, L, N], in factor form, trace 1, unloaded."""
    return normalise(factor=back_projected.mT, eps_psd=0.0)


def _lift(modes: ChannelEigenmodes, weight: Tensor, codes: Tensor) -> Tensor:
    weighted = modes.coordinates * weight.unsqueeze(-2)
    return codes.conj() * (weighted @ modes.lift.mT)
