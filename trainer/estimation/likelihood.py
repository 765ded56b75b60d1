"""The likelihood of snapshots given sources: value, gradient, Fisher information.

y_l ~ CN(0, C_l) independent, C_l = σ² I + B_l P B_lᴴ with B_l = G_l A and P diagonal: uncorrelated
sources. Up to a constant, the negative log likelihood is

    V = sum_l log det C_l + y_lᴴ C_l⁻¹ y_l
    ∂V/∂p   = sum_l tr(C_l⁻¹ ∂_p C_l) - y_lᴴ C_l⁻¹ ∂_p C_l C_l⁻¹ y_l
    F_pq    = sum_l tr(C_l⁻¹ ∂_p C_l C_l⁻¹ ∂_q C_l)                   (Kay 1993, eqs. 15.52, 15.60)

Every ∂_p C_l but that of σ² is d vᴴ + v dᴴ, with v = p_k b_k and d = ∂b_k for a coordinate,
b_k / 2 for a log power. By the matrix inversion lemma all forms u_iᴴ C⁻¹ u_j follow from inner
products of y, b_k, ∂b_k and a K x K inverse: no M x M matrix is formed.

Unknowns, in this order: azimuth, elevation, 1/range of every source, log p of every source,
log σ². Coloured noise is whitened before it comes here.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from trainer.scenes import SearchGrid, respond

from .levenberg_marquardt import Model


class Whitened(NamedTuple):
    """Snapshots y [B, L, M], channel H [B, M, N] and codes c [B, L, N]; the noise is white."""

    snapshots: Tensor
    channel: Tensor
    codes: Tensor


class InversionLemma(NamedTuple):
    """(σ² I + B P Bᴴ)⁻¹ = (I - B T Bᴴ) / σ².

    Attributes:
        inner: T, [*batch, K, K].
        gram: Bᴴ B, [*batch, K, K].
        logdet: log det(I + B P Bᴴ / σ²), [*batch].
    """

    inner: Tensor
    gram: Tensor
    logdet: Tensor

    @classmethod
    def of(cls, gram: Tensor, ratio: Tensor) -> "InversionLemma":
        """From Bᴴ B [*batch, K, K] and P/σ² [*batch, K] >= 0."""
        root = ratio.sqrt()
        scaled = root.unsqueeze(-1) * gram * root.unsqueeze(-2)
        eye = torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
        factor = torch.linalg.cholesky(eye + scaled)
        logdet = 2 * factor.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
        inverse = torch.cholesky_inverse(factor)
        return cls(root.unsqueeze(-1) * inverse * root.unsqueeze(-2), gram, logdet)

    def once(self, product: Tensor, against: Tensor) -> Tensor:
        """σ² Uᴴ C⁻¹ U from Uᴴ U [*batch, Q, Q] and Bᴴ U [*batch, K, Q]."""
        return product - against.mH @ self.inner @ against

    def twice(self, product: Tensor, against: Tensor) -> Tensor:
        """σ⁴ Uᴴ C⁻² U from the same."""
        middle = 2 * self.inner - self.inner @ self.gram @ self.inner
        return product - against.mH @ middle @ against

    def traces(self, size: int) -> tuple[Tensor, Tensor]:
        """σ² tr C⁻¹ and σ⁴ tr C⁻² for M = `size`, [*batch]."""
        part = self.inner @ self.gram
        once = part.diagonal(dim1=-2, dim2=-1).sum(-1).real
        twice = (part * part.mT).sum((-2, -1)).real
        return size - once, size - 2 * once + twice


@dataclass(frozen=True)
class Likelihood:
    """The cost that `descend` minimises, for K slots of which some are `active` [B, K]."""

    data: Whitened
    search: SearchGrid
    active: Tensor

    @property
    def slots(self) -> int:
        """K."""
        return self.active.shape[-1]

    def split(self, unknowns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unknowns [B, 4K + 1] as places [B, K, 3], powers [B, K] (0 if inactive), σ² [B]."""
        places, powers, noise = unknowns.split([3 * self.slots, self.slots, 1], dim=-1)
        powers = powers.exp() * self.active
        return places.unflatten(-1, (self.slots, 3)), powers, noise.squeeze(-1).exp()

    def model(self, unknowns: Tensor) -> Model:
        """V, its gradient and its Fisher information at [B, 4K + 1] unknowns."""
        places, powers, noise = self.split(unknowns)
        slopes = self.search.slopes(places).flatten(1, 2)
        vectors = torch.cat([self.search.response(places), slopes], dim=1)
        echoes = respond(self.data.channel, self.data.codes, vectors)
        columns = torch.cat([echoes, self.data.snapshots.unsqueeze(-1)], dim=-1)
        product = columns.mH @ columns  # of b_1 .. b_K, ∂b_1 .. ∂b_K by three each, y
        against = product[..., : self.slots, :]
        lemma = InversionLemma.of(
            against[..., : self.slots], (powers / noise.unsqueeze(-1)).unsqueeze(1)
        )
        scale = noise[:, None, None, None]
        return self._assemble(
            lemma.once(product, against) / scale,
            lemma.twice(product, against) / scale**2,
            lemma,
            powers,
            noise,
        )

    def _assemble(
        self, first: Tensor, second: Tensor, lemma: InversionLemma, powers: Tensor, noise: Tensor
    ) -> Model:
        """From uᴴ C⁻¹ u and uᴴ C⁻² u of all columns u, [B, L, 4K + 1, 4K + 1] each."""
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
        pull = (data[..., slope] * data[..., own].conj()).real.sum(1)
        gradient = 2 * weight * (first[..., own, slope].real.sum(1) - pull)
        by_noise = trace - noise * second[..., -1, -1].real.sum(1)
        gradient = torch.cat([gradient, by_noise.unsqueeze(-1)], dim=-1)
        energy = data[..., -1].real.sum(1)
        value = lemma.logdet.sum(1) + snapshots * antennas * noise.log() + energy
        return Model(value, gradient, curvature)
