"""`dictionary`: softmax powers over a steering dictionary, R = sum_g γ_g a_g a_gᴴ / N, dense.

The softmax makes a posterior of it: where the data cannot tell two places apart, both get power.
The form is that of sparse covariance fitting (Stoica, Babu, Li 2011, SPICE), with powers predicted
instead of iterated.
"""

from trainer.config import TrainConfig
from trainer.covariance import Covariance, DictionaryModule, normalise
from trainer.scenes import Scenes

from .power_map import GridLogits, power_maps


class DictionaryNetwork(DictionaryModule):
    """Softmax powers over the dictionary -> dense R."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.logits = GridLogits(config.network, self.shape, outputs=1, sharpness=4.0)

    def forward(self, scenes: Scenes) -> Covariance:
        """R = sum_g γ_g a_g a_gᴴ / N with sum_g γ_g = 1."""
        powers = self.logits(power_maps(scenes, self.outer)).squeeze(1).softmax(-1)
        return normalise(matrix=self.mixture(powers), eps_psd=self.eps_psd)
