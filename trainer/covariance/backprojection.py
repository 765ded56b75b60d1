"""Back-projection of the snapshots to the panel, and its sample covariance.

A snapshot y_l = G_l x_l + n_l, G_l = H diag(c_l), measures M of the panel's N dimensions. Its
back-projection follows from an M x M eigendecomposition of G_l G_lᴴ:
    pinv    x_l = G_lᴴ (G_l G_lᴴ)⁺ y_l             least norm
    LMMSE   x_l = G_lᴴ (G_l G_lᴴ + λI)⁻¹ y_l       λ = σ²/p, for the prior x_l ~ CN(0, p I)
(Kay 1993, Estimation Theory, eq. 12.26). Neither depends on the phase of a snapshot's code. Where
codes have modulus 1, G_l G_lᴴ = H Hᴴ for every l, and one eigendecomposition serves all snapshots
of a scene; otherwise, G_l G_lᴴ = H diag(|c_l|²) Hᴴ, and every snapshot has its own.

p and σ² are estimated from the snapshots alone. Steering entries have unit modulus, so codes with
independent phases make E y_l y_lᴴ = p G_l G_lᴴ + σ² I, whose eigenvectors are known: the
likelihood is maximised over λ by a search in one dimension, and p follows in closed form.

Coloured noise of known covariance is whitened first; H is then the whitened channel.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.linalg import squared_magnitude
from trainer.scenes import Scenes, has_unit_modulus

from .covariance import Covariance, normalise

RANK_TOLERANCE = 1e-6
"""Eigenvalues of G_l G_lᴴ below this times the largest count as zero in the pseudo-inverse."""
LEAST_MODE = 1e-4
"""Squared singular values of H below this times the largest carry no snapshots: 40 dB."""
LOADING_RANGE = (-6.0, 6.0)
"""log10 of the smallest and largest λ / mean eigenvalue of G_l G_lᴴ that are tried."""
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

    @property
    def mean_channel(self) -> Tensor:
        """H with its columns scaled so that |H_mn|² is the mean of |G_l,mn|² over l, [B, M, N]."""
        if has_unit_modulus(self.codes):
            return self.channel
        return self.channel * squared_magnitude(self.codes).mean(1, keepdim=True).sqrt()

    @property
    def num_modes(self) -> Tensor:
        """Number of singular values of H that carry something, [B]; at most M. As many amplitudes
        in a snapshot explain any."""
        squared = torch.linalg.svdvals(self.channel).square()
        return (squared > LEAST_MODE * squared[:, :1]).sum(-1)

    def to(self, dtype: torch.dtype) -> "Whitened":
        """Return the same measurements in another precision."""
        return Whitened(*(x.to(dtype) for x in self))


class ChannelEigenmodes(NamedTuple):
    """Eigendecompositions G_l G_lᴴ = U diag(gain) Uᴴ, with the snapshots in their coordinates.

    The snapshots of a scene are in J groups with one eigendecomposition each: J = 1 if codes have
    modulus 1, else J = L. With phases p_l of the codes, G_l = H' diag(p_l), H' = H diag(|c_l|).

    Attributes:
        gain: [B, J, M], ascending, never negative.
        coordinates: Uᴴ y_l, [B, J, L/J, M].
        lift: H'ᴴ U, [B, J, N, M].
        phases: p, [B, J, L/J, N].
    """

    gain: Tensor
    coordinates: Tensor
    lift: Tensor
    phases: Tensor

    def back_project(self, weight: Tensor) -> Tensor:
        """Return G_lᴴ U diag(weight) Uᴴ y_l, [B, L, N], of weights [B, J, M]."""
        weighted = self.coordinates * weight.unsqueeze(-2)
        return (self.phases.conj() * (weighted @ self.lift.mT)).flatten(1, 2)


def whiten(scenes: Scenes) -> Whitened:
    """Return the measurements of a batch in coordinates in which the noise is white."""
    snapshots, channel = scenes.snapshots, scenes.channel
    if scenes.noise_covariance is not None:
        root = torch.linalg.cholesky(scenes.noise_covariance)
        snapshots = torch.linalg.solve_triangular(root, snapshots.mT, upper=False).mT
        channel = torch.linalg.solve_triangular(root, channel, upper=False)
    return Whitened(snapshots, channel, scenes.codes)


def channel_eigenmodes(scenes: Scenes) -> ChannelEigenmodes:
    """Return the eigendecompositions that all back-projections of a batch share."""
    snapshots, channel, codes = whiten(scenes)
    if has_unit_modulus(codes):
        snapshots, channel, phases = (x.unsqueeze(1) for x in (snapshots, channel, codes))
    else:
        channel = channel.unsqueeze(1) * codes.abs().unsqueeze(2)
        snapshots, phases = snapshots.unsqueeze(2), codes.sgn().unsqueeze(2)
    gain, modes = torch.linalg.eigh(channel @ channel.mH)
    lift = channel.mH @ modes
    return ChannelEigenmodes(gain.clamp(min=0), snapshots @ modes.conj(), lift, phases)


def fit_loading(modes: ChannelEigenmodes) -> tuple[Tensor, Tensor]:
    """Return maximum-likelihood p and λ = σ²/p of E y_l y_lᴴ = p (G_l G_lᴴ + λ I), [B] each.

    With z_m the mean power in mode m of a group, -log likelihood / L is the mean over groups of
    sum_m log(p (g_m + λ)) + z_m / (p (g_m + λ)); given λ it is least at p = mean z_m / (g_m + λ).
    """
    # abs().square(), not `squared_magnitude`: recorded trials replay bit for bit
    power = modes.coordinates.abs().square().mean(-2).flatten(1)
    exponent = torch.linspace(
        *LOADING_RANGE, LOADING_STEPS, dtype=power.dtype, device=power.device
    )
    gain = modes.gain.flatten(1)
    mean = gain.mean(-1, keepdim=True)
    # a dead channel returns noise alone: any λ but 0 is right
    loading = mean.where(mean > 0, torch.ones_like(mean)) * 10**exponent
    variance = gain.unsqueeze(-2) + loading.unsqueeze(-1)
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
    return modes.back_project(inverse)


def lmmse(scenes: Scenes, loading: Tensor | None = None) -> Tensor:
    """Return the linear minimum-mean-square-error back-projection of every snapshot: [B, L, N].

    Args:
        loading: λ, [B]; by default estimated from the snapshots.
    """
    modes = channel_eigenmodes(scenes)
    if loading is None:
        _, loading = fit_loading(modes)
    return modes.back_project(1 / (modes.gain + loading[:, None, None]))


def sample_covariance(back_projected: Tensor) -> Covariance:
    """Return sum_l x_l x_lᴴ of snapshots [B, L, N], in factor form, trace 1, unloaded."""
    return normalise(factor=back_projected.mT, eps_psd=0.0)
