"""The network `gram`: a free factor G from convolutions over the measured covariance, R ~ G Gᴴ.

No steering vector is in its output: G is any N x N matrix, and so R any covariance, where the
other networks are bound to positive sums of steering vectors. The design is that of surrogate
covariances (Shmuel, Merkofer, Revach, van Sloun and Shlezinger 2023, "SubspaceNet"), with a white
floor of `FLOOR` tr R beside G Gᴴ. Normalised *before* the product, G has norm 1 and the floor its
fixed share; *after* it, the norm of G decides what share the floor has.

The input are two N x N matrices of the back-projection, those whose quadratic forms the maps of
`power_map` are: the sample covariance, and what white sources would give in its place. An entry
belongs to a pair of elements; convolutions run over the panel's rows and columns, of the pair's
first element and of its second in turn. No weight belongs to an element.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.covariance import Covariance, normalise
from trainer.scenes import Scenes

from .power_map import NOISE_RANGE, back_projection

FLOOR = 0.1
"""Trace of the white floor relative to that of a normalised G Gᴴ."""
SMALLEST_NORM = 1e-12
"""Smallest divisor of a matrix by its norm: silence stays 0."""
INPUTS = 7
"""Real and imaginary parts of three matrices, and the noise."""


class GramNetwork(nn.Module):
    """A network that predicts one complex number per pair of elements.

    Attributes:
        share: of the sample covariance S and of S², both of norm 1, in G, to which the
            convolutions add; the last of these starts at zero.
    """

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.eps_psd = config.eps_psd
        self.before = config.network.normalisation == "before"
        self.lattice = (config.scene.num_vertical, config.scene.num_horizontal)
        inner = [config.network.width] * (config.network.depth - 1)
        widths = [INPUTS, *inner, 2]
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise(widths))
        for parameter in self.layers[-1].parameters():
            nn.init.zeros_(parameter)
        self.share = nn.Parameter(torch.full((2,), 0.5))

    def forward(self, scenes: Scenes) -> Covariance:
        """Return R = G Gᴴ + floor, dense, of trace 1."""
        measured = back_projection(scenes)
        sample, white = measured.matrices.unbind()
        once, twice = _of_norm_one(sample), _of_norm_one(sample @ sample)
        size = sample.shape[-1]
        pairs = torch.view_as_real(size * torch.stack([once, twice, _of_norm_one(white)], 1))
        noise = (measured.log_noise / NOISE_RANGE)[:, None, None, None]
        image = torch.cat([pairs.movedim(-1, 2).flatten(1, 2), noise.expand(-1, 1, size, size)], 1)
        made = torch.view_as_complex(self._convolved(image).movedim(1, -1).contiguous())
        factor = self.share[0] * once + self.share[1] * twice + made / size
        if self.before:
            factor = _of_norm_one(factor)
        floor = torch.eye(size, dtype=factor.dtype, device=factor.device) * (FLOOR / size)
        return normalise(matrix=factor @ factor.mH + floor, eps_psd=self.eps_psd)

    def _convolved(self, image: Tensor) -> Tensor:
        """Return [B, 2, N, N] of [B, INPUTS, N, N]: over first and second elements in turn."""
        batch, _, size, _ = image.shape
        for number, layer in enumerate(self.layers, 1):
            panels = image.permute(0, 3, 1, 2).reshape(batch * size, -1, *self.lattice)
            made = layer(panels)
            if number < len(self.layers):
                made = nn.functional.gelu(made)
            image = made.reshape(batch, size, -1, size).transpose(1, 2)  # the pair swapped
        return image


def _of_norm_one(matrix: Tensor) -> Tensor:
    norm = torch.linalg.matrix_norm(matrix, keepdim=True)
    return matrix / norm.clamp(min=SMALLEST_NORM)
