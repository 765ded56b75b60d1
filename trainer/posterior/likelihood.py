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

import copy
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.covariance import Whitened, whiten
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

    a₂ and q₂ are None for one source, where they are 0.
    """

    energy: Tensor
    trace: Tensor
    determinant: Tensor | None
    matched: Tensor
    crossed: Tensor | None

    def take(self, scenes: Tensor) -> "Forms":
        """Return the forms of some of the scenes, by number."""
        determinant, crossed = (
            None if x is None else x[scenes] for x in (self.determinant, self.crossed)
        )
        return Forms(
            self.energy[scenes], self.trace[scenes], determinant, self.matched[scenes], crossed
        )


class Echoes(NamedTuple):
    """Signals that single places send to the antennas, whitened.

    Attributes:
        columns: b, real: the M real parts and then the M imaginary ones, [B, S, L, 2M].
        gain: g = |b|², [B, S, L].
        matched: f = bᴴ y, [B, S, L].
        energy: sum_l |b|² before whitening, [B, S].
    """

    columns: Tensor
    gain: Tensor
    matched: Tensor
    energy: Tensor

    def single_forms(self) -> Forms:
        """Return the forms of each place alone; batch axes [B, S]."""
        return Forms(self.energy, self.gain, None, squared_magnitude(self.matched), None)

    def take(self, index: Tensor) -> "Echoes":
        """Return the echoes of some of the places, index [B, R]."""
        first = torch.arange(len(index), device=index.device) * self.gain.shape[1]
        flat = (index + first.unsqueeze(-1)).flatten()
        return Echoes(
            *(x.flatten(0, 1).index_select(0, flat).unflatten(0, index.shape) for x in self)
        )


class ScaleFreeLikelihood:
    """The likelihood of one or two places in each scene of a batch.

    Attributes:
        dimensions: L M.
        total: sum_l |y_l|², whitened, [B].
    """

    def __init__(self, scenes: Scenes) -> None:
        self.panel = scenes.panel
        self.data = whiten(scenes)
        # one product for all antennas and snapshots is several times as fast as one per snapshot
        self._forward = _as_real(self.data.responses)
        self._back = (self.data.responses.mH @ self.data.snapshots.unsqueeze(-1)).squeeze(-1)
        # a channel as measured, where whitening has changed it: it defines the SNR
        self._measured = None if scenes.noise_covariance is None else scenes.channel
        self.dimensions = scenes.num_snapshots * scenes.num_antennas
        self.total = squared_norm(self.data.snapshots)

    def take(self, scenes: Tensor) -> "ScaleFreeLikelihood":
        """Return the likelihood of some of the scenes, by number."""
        part = copy.copy(self)
        part.data = Whitened(*(x[scenes] for x in self.data))
        part.total, part._forward, part._back = (
            x[scenes] for x in (self.total, self._forward, self._back)
        )
        part._measured = None if self._measured is None else self._measured[scenes]
        return part

    def echoes(self, places: Tensor) -> Echoes:
        """Return the echoes of single places [B, S, 3]."""
        azimuth, elevation, inverse_range = places.unbind(-1)
        steering = steering_vector(self.panel, azimuth, elevation, 1 / inverse_range)
        columns = self.columns(steering)
        gain = torch.linalg.vector_norm(columns, dim=-1).square()
        energy = gain.sum(-1)
        if self._measured is not None:
            measured = respond(self._measured, self.data.codes, steering)
            energy = squared_magnitude(measured).sum((1, 2))
        matched = steering.conj() @ self._back.mT
        return Echoes(columns, gain, matched, energy)

    def columns(self, vectors: Tensor) -> Tensor:
        """Return G_l x of panel vectors x [B, S, N] as real numbers, [B, S, L, 2M]."""
        real = torch.cat([vectors.real, vectors.imag], dim=-1)
        return (real @ self._forward.mT).unflatten(-1, (self.data.snapshots.shape[1], -1))

    def forms(self, places: Tensor) -> Forms:
        """Return the forms of places [B, S, K, 3], K <= `MOST_SOURCES`; batch axes [B, S]."""
        count = places.shape[2]
        if not 1 <= count <= MOST_SOURCES:
            raise ValueError(
                f"`1 <= num_sources <= {MOST_SOURCES}` must hold, but got {count}. "
                "There is no closed form for more sources."
            )
        echoes = self.echoes(places.flatten(1, 2))
        if count == 1:
            return echoes.single_forms()
        return paired_forms(*(Echoes(*(x[:, k::2] for x in echoes)) for k in range(2)))

    def log_likelihood(self, forms: Forms, snr_db: Tensor) -> Tensor:
        """Return log p(y | places, γ) + const. [B, *batch] at an SNR [dB] of each scene [B]."""
        shape = (-1, *[1] * (forms.energy.dim() - 1))
        ratio = self.dimensions * 10 ** (snr_db.view(shape) / 10) / forms.energy
        return self.at_ratio(forms, ratio)

    def at_ratio(self, forms: Forms, ratio: Tensor) -> Tensor:
        """Return log p(y | places, ρ) + const. [B, *batch] at ratios ρ, [B, *batch] broadcast."""
        shape = (-1, *[1] * (forms.energy.dim() - 1))
        ratio = ratio.unsqueeze(-1)
        linear, matched = forms.trace, forms.matched
        if forms.determinant is not None and forms.crossed is not None:
            linear = linear + ratio * forms.determinant
            matched = matched + ratio * forms.crossed
        determinant = (ratio * linear).add_(1)
        rest = self.total.view(shape) - (ratio * matched).div_(determinant).sum(-1)
        return -sum_of_logs(determinant, -1, 2) - self.dimensions * rest.log()


def sum_of_logs(values: Tensor, axis: int, factors: int) -> Tensor:
    """Return the sum of logarithms along an axis, so many of the values multiplied beforehand.

    Their products must be within the range of the dtype. The values are overwritten.
    """
    size = values.shape[axis]
    first, *others = values.split(-(-size // factors), axis)
    for each in others:
        first.narrow(axis, 0, each.shape[axis]).mul_(each)
    return first.log_().sum(axis)


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


def paired_forms(first: Echoes, second: Echoes) -> Forms:
    """Return the forms of every place with the place of the same number: batch axes [B, S]."""
    # products of real and imaginary parts, [..., 2, 2]
    one, two = (x.columns.unflatten(-1, (2, -1)) for x in (first, second))
    parts = one @ two.mT
    real = parts[..., 0, 0] + parts[..., 1, 1]
    return pair_forms(
        first.energy + second.energy,
        first.gain,
        second.gain,
        torch.complex(real, parts[..., 0, 1] - parts[..., 1, 0]),
        first.matched,
        second.matched,
    )


def all_pairs(first: Echoes, second: Echoes) -> Forms:
    """Return the forms of every one of R places with every one of C: batch axes [B, R, C]."""
    turned = quarter_turn(second.columns)
    # by snapshot: products of matrices
    one, two, turned = (x.transpose(1, 2) for x in (first.columns, second.columns, turned))
    return pair_forms(
        first.energy.unsqueeze(2) + second.energy.unsqueeze(1),
        first.gain.unsqueeze(2),
        second.gain.unsqueeze(1),
        torch.complex(one @ two.mT, one @ turned.mT).movedim(1, -1),
        first.matched.unsqueeze(2),
        second.matched.unsqueeze(1),
    )


def _as_real(responses: Tensor) -> Tensor:
    """Return G_l of all snapshots as real matrices below each other, [B, L 2M, 2N]."""
    real, imaginary = responses.real, responses.imag
    top, bottom = torch.cat([real, -imaginary], -1), torch.cat([imaginary, real], -1)
    return torch.cat([top, bottom], dim=-2).flatten(1, 2)


def quarter_turn(columns: Tensor) -> Tensor:
    """Return -i b of columns [..., 2M] as real numbers, so that b₁ᵀ(-i b₂) = Im b₁ᴴ b₂."""
    real, imaginary = columns.chunk(2, dim=-1)
    return torch.cat([imaginary, -real], dim=-1)
