"""Terms of a training loss, per scene, that `losses.py` tries on a network of dictionary powers.

    nmse            of the covariance: what is shipped
    gap ... capture the hinges of `trainer.spectral`, `capture` being `subspace`; at margins
                    that nearly every scene falls short of
    map             cross-entropy of the powers over the dictionary against the true ones
    likelihood      negative, of the very snapshots that the network saw, less the truth's
    unseen          the same expected of other snapshots: a divergence, 0 at the truth (James and
                    Stein 1961)

The last two are means over snapshots and antennas, in nats, and take scale and noise from the
truth: C_l / σ² is then I and something that is never negative, safe in single precision.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.covariance import PLANE_PHASE, POINTS_PER_BEAM, Covariance, true_factor, whiten
from trainer.scenes import Scenes, search_grid
from trainer.training import eigengap_hinge

HINGES = {
    "gap": ("gap", {"eigengap.margin": 1.0}),
    "ratio": ("ratio", {"eigengap.margin_ratio": 0.9}),
    "energy": ("energy", {"eigengap.margin_energy": 1.0}),
    "leak": ("leak", {"eigengap.margin_leak": 0.0}),
    "capture": ("subspace", {"eigengap.margin_subspace": 0.0}),
}
"""Definitions and margins."""


class Predicted(NamedTuple):
    """Output of a network for a batch: log powers on the dictionary [B, G], and R made of them."""

    log_powers: Tensor
    covariance: Covariance

    @classmethod
    def by(cls, network: nn.Module, scenes: Scenes) -> "Predicted":
        """R is all that a network hands over: its powers are what its last stage returned."""
        seen: list[Tensor] = []
        hook = network.stages[-1].register_forward_hook(lambda *call: seen.append(call[-1]))
        covariance = network(scenes)
        hook.remove()
        return cls(seen[0], covariance)


Term = Callable[[Predicted, Scenes], Tensor]


def true_map(config: TrainConfig, scenes: Scenes) -> Tensor:
    """Return shares of the true power on the dictionary's grid [B, G]: each source's is spread
    over the eight points around it so that their mean is its place (linear in the grid's
    coordinates)."""
    grid = search_grid(config.scene, scenes.snr_db.dtype, "cpu", POINTS_PER_BEAM, PLANE_PHASE)
    sources = scenes.sources
    ends = torch.stack([grid.lower, grid.upper])
    ends = torch.stack([ends[:, 2], ends[:, 1].sin(), ends[:, 0].sin()], dim=-1)
    place = torch.stack([1 / sources.range_m, sources.elevation.sin(), sources.azimuth.sin()], -1)
    last = torch.tensor(grid.shape) - 1
    place = ((place - ends[0]) / (ends[1] - ends[0])).clamp(0, 1) * last  # [B, K, 3]
    corner = place.floor().minimum(last - 1)
    shares = sources.power / sources.power.sum(-1, keepdim=True)
    target = shares.new_zeros(len(shares), len(grid.points))
    for step in itertools.product((0, 1), repeat=3):
        index = corner + torch.tensor(step)
        weight = (1 - (place - index).abs()).prod(-1)
        plane, row, column = index.long().unbind(-1)
        flat = (plane * grid.shape[1] + row) * grid.shape[2] + column
        target.scatter_add_(1, flat, shares * weight)
    return target


def roots(matrix: Tensor, scenes: Scenes) -> Tensor:
    """Return Cholesky factors of C_l / σ² = I + (p / σ²) G_l R G_lᴴ [B, L, M, M], tr R = 1."""
    channel = whiten(scenes).channel
    power = scenes.sources.power.sum(-1) * matrix.shape[-1]  # tr A P Aᴴ, uncorrelated sources
    channel = channel * (power / scenes.noise_variance).sqrt()[:, None, None]
    responses = channel.unsqueeze(1) * scenes.codes.unsqueeze(2)
    mixed = responses @ matrix.unsqueeze(1) @ responses.mH
    return torch.linalg.cholesky((mixed + mixed.mH) / 2 + torch.eye(mixed.shape[-1]))


def code_length(root: Tensor, data: Tensor) -> Tensor:
    """Return log det C_l + tr C_l⁻¹ D_l D_lᴴ of data D_l [B, L, M, *], mean over l and antennas:
    [B]."""
    size = root.shape[-1]
    logdet = 2 * root.diagonal(dim1=-2, dim2=-1).real.log().sum(-1)
    white = torch.linalg.solve_triangular(root, data, upper=False)
    return ((logdet + white.abs().square().sum((-2, -1))) / size).mean(-1)


def divergence(seen: Predicted, scenes: Scenes, *, unseen: bool) -> Tensor:
    """Return the code length under R less that under the truth, of the snapshots or in
    expectation: [B]."""
    truth = true_factor(scenes)
    exact, found = (roots(matrix, scenes) for matrix in (truth @ truth.mH, seen.covariance.held))
    noise = scenes.noise_variance.sqrt()[:, None, None, None]
    data = exact if unseen else whiten(scenes).snapshots.unsqueeze(-1) / noise
    return code_length(found, data) - code_length(exact, data)


def terms_of(config: TrainConfig) -> dict[str, Term]:
    """Return every term by name, [B] each."""

    def hinge(definition: str, margin: Mapping[str, float]) -> Term:
        weighted = {"eigengap.weight": 1.0, "eigengap.definition": definition} | margin
        asked = TrainConfig.from_params(config.to_params() | weighted)
        return lambda seen, scenes: eigengap_hinge(seen.covariance, scenes, asked)(
            seen.covariance.held
        )

    return {
        "nmse": lambda seen, scenes: seen.covariance.nmse(scenes),
        **{name: hinge(*how) for name, how in HINGES.items()},
        "map": lambda seen, scenes: -(true_map(config, scenes) * seen.log_powers).sum(-1),
        "likelihood": lambda seen, scenes: divergence(seen, scenes, unseen=False),
        "unseen": lambda seen, scenes: divergence(seen, scenes, unseen=True),
    }
