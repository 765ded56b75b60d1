"""The likelihood of the snapshots given sources: value, gradient and Fisher information.

y_l ~ CN(0, C_l), independent, with C_l = σ² I + B_l P B_lᴴ, B_l = G_l A and P diagonal, so for
uncorrelated sources. Up to a constant, the negative log likelihood is

    V = sum_l log det C_l + y_lᴴ C_l⁻¹ y_l
    ∂V/∂p   = sum_l tr(C_l⁻¹ ∂_p C_l) - y_lᴴ C_l⁻¹ ∂_p C_l C_l⁻¹ y_l
    F_pq    = sum_l tr(C_l⁻¹ ∂_p C_l C_l⁻¹ ∂_q C_l)                   (Kay 1993, eqs. 15.52, 15.60)

Every ∂_p C_l except that of σ² is d vᴴ + v dᴴ, with v = p_k b_k, and d = ∂b_k for a coordinate
or b_k / 2 for a log power. By the matrix inversion lemma all forms u_iᴴ C⁻¹ u_j follow from inner
products of y, b_k, ∂b_k and a K x K inverse: no M x M matrix is formed.

Unknowns, in this order: azimuth, elevation and 1/range of every source, log p of every source,
log σ². The data are whitened.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.covariance import Whitened
from trainer.scenes import SearchGrid, respond

from .levenberg_marquardt import LocalModel

DIFFERENCE = 1e-6
"""Step of differences of the gradient, in radians, 1/m and natural logarithms of powers."""


class InversionLemma(NamedTuple):
    """The terms of (σ² I + B P Bᴴ)⁻¹ = (I - B T Bᴴ) / σ².

    Attributes:
        inner: T, [*batch, K, K].
        gram: Bᴴ B, [*batch, K, K].
        logdet: log det(I + B P Bᴴ / σ²), [*batch].
    """

    inner: Tensor
    gram: Tensor
    logdet: Tensor

    @classmethod
    def from_gram(cls, gram: Tensor, ratio: Tensor) -> "InversionLemma":
        """Return the terms for Bᴴ B [*batch, K, K] and P/σ² [*batch, K] >= 0."""
        root = ratio.sqrt()
        scaled = root.unsqueeze(-1) * gram * root.unsqueeze(-2)
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        factor = torch.linalg.cholesky(eye + scaled)
        logdet = 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
        inverse = torch.cholesky_inverse(factor)
        return cls(root.unsqueeze(-1) * inverse * root.unsqueeze(-2), gram, logdet)

    def inverse_form(self, product: Tensor, against: Tensor) -> Tensor:
        """Return σ² Uᴴ C⁻¹ U from Uᴴ U [*batch, Q, Q] and Bᴴ U [*batch, K, Q]."""
        return product - against.mH @ self.inner @ against

    def squared_form(self, product: Tensor, against: Tensor) -> Tensor:
        """Return σ⁴ Uᴴ C⁻² U from the same."""
        middle = 2 * self.inner - self.inner @ self.gram @ self.inner
        return product - against.mH @ middle @ against

    def traces(self, size: int) -> tuple[Tensor, Tensor]:
        """Return σ² tr C⁻¹ and σ⁴ tr C⁻² for M = `size`, [*batch]."""
        part = self.inner @ self.gram
        once = part.diagonal(dim1=-2, dim2=-1).sum(-1).real
        twice = (part * part.mT).sum((-2, -1)).real
        return size - once, size - 2 * once + twice


@dataclass(frozen=True)
class Likelihood:
    """The negative log likelihood V, for K slots of which some are `active` [B, K]."""

    data: Whitened
    search: SearchGrid
    active: Tensor

    @property
    def slots(self) -> int:
        """K."""
        return self.active.shape[-1]

    def split(self, unknowns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Split [B, 4K + 1] into positions [B, K, 3], powers [B, K] (0 if inactive), σ² [B]."""
        positions, powers, noise = unknowns.split([3 * self.slots, self.slots, 1], dim=-1)
        powers = powers.exp() * self.active
        return positions.unflatten(-1, (self.slots, 3)), powers, noise.squeeze(-1).exp()

    def local_model(self, unknowns: Tensor) -> LocalModel:
        """Return V, its gradient and its Fisher information at unknowns [B, 4K + 1]."""
        positions, powers, noise = self.split(unknowns)
        slopes = self.search.slopes(positions).flatten(1, 2)
        vectors = torch.cat([self.search.response(positions), slopes], dim=1)
        echoes = respond(self.data.channel, self.data.codes, vectors)
        columns = torch.cat([echoes, self.data.snapshots.unsqueeze(-1)], dim=-1)
        product = columns.mH @ columns  # of b_1 .. b_K, ∂b_1 .. ∂b_K by three each, y
        against = product[..., : self.slots, :]
        ratio = (powers / noise.unsqueeze(-1)).unsqueeze(1)
        lemma = InversionLemma.from_gram(against[..., : self.slots], ratio)
        scale = noise[:, None, None, None]
        return self._assemble(
            lemma.inverse_form(product, against) / scale,
            lemma.squared_form(product, against) / scale**2,
            lemma,
            powers,
            noise,
        )

    def observed_information(self, unknowns: Tensor) -> Tensor:
        """Return the Hessian of V at unknowns [B, 4K + 1], by differences of the gradient.

        Its error is of the order of `DIFFERENCE` relative to the scale on which it varies.
        """
        here = self.local_model(unknowns).gradient
        steps = DIFFERENCE * torch.eye(unknowns.shape[-1], dtype=unknowns.dtype).to(unknowns)
        moved = [self.local_model(unknowns + step).gradient - here for step in steps]
        hessian = torch.stack(moved, dim=-1) / DIFFERENCE
        return (hessian + hessian.mT) / 2

    def _assemble(
        self, first: Tensor, second: Tensor, lemma: InversionLemma, powers: Tensor, noise: Tensor
    ) -> LocalModel:
        # first, second: uᴴ C⁻¹ u and uᴴ C⁻² u of all columns u, [B, L, 4K + 1, 4K + 1] each
        count, snapshots, antennas = self.slots, *self.data.snapshots.shape[1:]
        index = torch.arange(count, device=first.device)
        # the columns that are d and b of every parameter
        slope = torch.arange(4 * count, device=first.device).roll(-count)
        own = torch.cat([index.repeat_interleave(3), index])
        weight = torch.cat([powers.repeat_interleave(3, dim=-1), powers / 2], dim=-1)
        cross = first[..., own, :][..., slope]  # [p, q] = b_pᴴ C⁻¹ d_q
        among = first[..., slope, :][..., slope]  # d_pᴴ C⁻¹ d_q
        between = first[..., own, :][..., own]  # b_pᴴ C⁻¹ b_q
        fisher = (cross * cross.mT + among.mT * between).real.sum(1)
        curvature = fisher.new_zeros(len(fisher), 4 * count + 1, 4 * count + 1)
        curvature[:, :-1, :-1] = 2 * weight.unsqueeze(-1) * weight.unsqueeze(-2) * fisher
        by_noise = second[..., own, slope].real.sum(1)
        by_noise = 2 * noise.unsqueeze(-1) * weight * by_noise
        curvature[:, :-1, -1] = curvature[:, -1, :-1] = by_noise
        trace, trace_squared = (t.sum(1) for t in lemma.traces(antennas))
        curvature[:, -1, -1] = trace_squared

        data = first[..., -1, :]  # yᴴ C⁻¹ u
        matched = (data[..., slope] * data[..., own].conj()).real.sum(1)
        gradient = 2 * weight * (first[..., own, slope].real.sum(1) - matched)
        by_noise = trace - noise * second[..., -1, -1].real.sum(1)
        gradient = torch.cat([gradient, by_noise.unsqueeze(-1)], dim=-1)
        energy = data[..., -1].real.sum(1)
        value = lemma.logdet.sum(1) + snapshots * antennas * noise.log() + energy
        return LocalModel(value, gradient, curvature)
