"""The likelihood of places with the scale of the snapshots integrated out, for one or two sources.

Sources have equal powers. At SNR γ, defined by the scene's own directions (`simulate`), the noise
is white with variance σ² = p sum_l tr(B_lᴴ B_l) / (L M γ), B_l = G_l A. So C_l = σ² (I + ρ B_l
B_lᴴ), where ρ = L M γ / sum_l tr(B_lᴴ B_l) depends on the places alone. An observer that does not
know the scale has the density of the snapshots' shape, with dσ²/σ² integrated out,

    log p(y | places, γ) = -sum_l log det(I + ρ Bᴴ B) - L M log(sum_l yᴴ (I + ρ B Bᴴ)⁻¹ y) + const.

It is what a method can use that gives the same answer for y and 2y. Knowing σ² and p as well gives
places away by their energy, since the SNR is defined by the places themselves.

With one or two sources the determinant and the quadratic form are polynomials in ρ:

    det(I + ρ BᴴB) = 1 + ρ a₁ + ρ² a₂        a₁ = g₁ + g₂,          a₂ = g₁ g₂ - |g₁₂|²
    fᴴ (I + ρ BᴴB)⁻¹ f = (q₁ + ρ q₂) / det    q₁ = |f₁|² + |f₂|²,   q₂ = |f₁|² g₂ + |f₂|² g₁
                                                                      - 2 Re(f₁* g₁₂ f₂)

with BᴴB = [g₁ g₁₂; g₁₂* g₂] and f = Bᴴ y. Coloured noise is whitened first.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from trainer.covariance import whiten
from trainer.linalg import squared_magnitude, squared_norm
from trainer.scenes import Scenes, respond, steering_vector

MOST_SOURCES = 2
"""Largest K of the closed forms."""


class Forms(NamedTuple):
    """Coefficients of the likelihood of places, the same for every SNR.

    Attributes:
        energy: sum_l tr(Bᴴ B) before whitening, [*batch].
        trace, determinant: a₁ and a₂, [*batch, L].
        matched, crossed: q₁ and q₂, [*batch, L].
    """

    energy: Tensor
    trace: Tensor
    determinant: Tensor
    matched: Tensor
    crossed: Tensor


class Echoes(NamedTuple):
    """Signals that single places send to the antennas, whitened.

    Attributes:
        columns: b, [B, L, S, M].
        gain: g = |b|², [B, L, S].
        matched: f = bᴴ y, [B, L, S].
        energy: sum_l |b|² before whitening, [B, S].
    """

    columns: Tensor
    gain: Tensor
    matched: Tensor
    energy: Tensor

    def single_forms(self) -> Forms:
        """Return the forms of each place alone; batch axes [B, S]."""
        gain, nothing = self.gain.mT, torch.zeros_like(self.gain.mT)
        return Forms(self.energy, gain, nothing, squared_magnitude(self.matched.mT), nothing)


class ScaleFreeLikelihood:
    """The likelihood of one or two places in each scene of a batch.

    Attributes:
        dimensions: L M.
        total: sum_l |y_l|², whitened, [B].
    """

    def __init__(self, scenes: Scenes) -> None:
        self.panel = scenes.panel
        self.data = whiten(scenes)
        # a channel as measured, where whitening has changed it: it defines the SNR
        self._measured = None if scenes.noise_covariance is None else scenes.channel
        self.dimensions = scenes.num_snapshots * scenes.num_antennas
        self.total = squared_norm(self.data.snapshots)

    def echoes(self, places: Tensor) -> Echoes:
        """Return the echoes of single places [B, S, 3]."""
        azimuth, elevation, inverse_range = places.unbind(-1)
        steering = steering_vector(self.panel, azimuth, elevation, 1 / inverse_range)
        columns = steering.unsqueeze(1) @ self.data.responses.mT
        gain = squared_magnitude(columns).sum(-1)
        energy = gain.sum(1)
        if self._measured is not None:
            measured = respond(self._measured, self.data.codes, steering)
            energy = squared_magnitude(measured).sum((1, 2))
        matched = (columns.conj() @ self.data.snapshots.unsqueeze(-1)).squeeze(-1)
        return Echoes(columns, gain, matched, energy)

    def forms(self, places: Tensor) -> Forms:
        """Return the forms of places [B, S, K, 3], K <= `MOST_SOURCES`; batch axes [B, S]."""
        size, count = places.shape[1:3]
        if not 1 <= count <= MOST_SOURCES:
            raise ValueError(
                f"`1 <= num_sources <= {MOST_SOURCES}` must hold, but got {count}. "
                "There is no closed form for more sources."
            )
        echoes = self.echoes(places.flatten(1, 2))
        if count == 1:
            return echoes.single_forms()
        one, two = echoes.columns.unflatten(2, (size, 2)).unbind(3)
        cross = (one.conj() * two).sum(-1).mT
        first, second = (
            Echoes(echoes.columns[:, :, k::2], *(x[..., k::2] for x in echoes[1:]))
            for k in range(2)
        )
        return pair_forms(
            first.energy + second.energy,
            first.gain.mT,
            second.gain.mT,
            cross,
            first.matched.mT,
            second.matched.mT,
        )

    def log_likelihood(self, forms: Forms, snr_db: Tensor) -> Tensor:
        """Return log p(y | places, γ) + const. [B, *batch] at an SNR [dB] of each scene [B]."""
        shape = (-1, *[1] * (forms.energy.dim() - 1))
        ratio = self.dimensions * 10 ** (snr_db.view(shape) / 10) / forms.energy
        ratio = ratio.unsqueeze(-1)
        determinant = 1 + ratio * (forms.trace + ratio * forms.determinant)
        explained = ratio * (forms.matched + ratio * forms.crossed) / determinant
        rest = self.total.view(shape) - explained.sum(-1)
        return -determinant.log().sum(-1) - self.dimensions * rest.log()


def pair_forms(
    energy: Tensor, one: Tensor, two: Tensor, cross: Tensor, first: Tensor, second: Tensor
) -> Forms:
    """Return the forms of two sources with g₁, g₂, g₁₂, f₁ and f₂, each [*batch, L] broadcast."""
    power_one, power_two = squared_magnitude(first), squared_magnitude(second)
    return Forms(
        energy=energy,
        trace=one + two,
        determinant=one * two - squared_magnitude(cross),
        matched=power_one + power_two,
        crossed=power_one * two + power_two * one - 2 * (first.conj() * cross * second).real,
    )
