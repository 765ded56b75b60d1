"""A network and a loss term of one's own, for `--network` and `--loss` (docs/own_code.md).

    python -m search.run --preset smoke --network examples/free_gram.py:FreeGram \
        --range network.args.rank=4:16 --loss examples/free_gram.py:count_entropy \
        --range loss.weight=0.01:1:log
"""

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.covariance import Covariance, lmmse, normalise
from trainer.scenes import Scenes


class FreeGram(nn.Module):
    """A free factor in the span of the back-projected snapshots: F = Y W, R = F Fᴴ.

    A perceptron on the L x L Gram matrix of Y [N, L] predicts W [L, rank], so that no weight
    depends on the panel.
    """

    def __init__(self, config: TrainConfig, *, rank: int = 8, hidden: int = 64) -> None:
        super().__init__()
        self.rank = rank
        self.eps_psd = config.eps_psd
        snapshots = config.scene.num_snapshots
        self.weights = nn.Sequential(
            nn.Linear(2 * snapshots**2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 2 * snapshots * rank),
        )

    def forward(self, scenes: Scenes) -> Covariance:
        """Return the covariance of every scene as a factor [B, N, rank]."""
        snapshots = lmmse(scenes).mT  # [B, N, L]
        snapshots = snapshots / torch.linalg.matrix_norm(snapshots)[:, None, None]
        gram = torch.view_as_real(snapshots.mH @ snapshots).flatten(1)
        pairs = self.weights(gram).unflatten(1, (-1, self.rank, 2))
        return normalise(factor=snapshots @ torch.view_as_complex(pairs), eps_psd=self.eps_psd)


def count_entropy(covariance: Covariance, scenes: Scenes) -> Tensor:
    """Return (H - log K)² [B], H = -log tr(R²) the Rényi entropy of order 2 of the eigenvalues:
    K equal sources have H = log K."""
    held = covariance.held if covariance.factor is None else covariance.held.mH @ covariance.held
    entropy = -held.abs().square().sum((-2, -1)).log()
    return (entropy - scenes.sources.num_sources.clamp(min=1).log()).square()
