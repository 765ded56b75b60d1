"""The network `dictionary`: softmax powers over a steering dictionary, as a dense covariance.

The powers are a posterior: where the data cannot tell two positions apart, both get power. The
form R = sum_g γ_g a_g a_gᴴ / N is that of sparse covariance fitting (Stoica, Babu and Li 2011,
"SPICE"), with powers predicted instead of iterated.
"""

from trainer.config import TrainConfig
from trainer.covariance import Covariance, normalise
from trainer.scenes import Scenes

from .dictionary_module import DictionaryModule
from .power_map import GridLogits, power_maps


class DictionaryNetwork(DictionaryModule):
    """A network that predicts one power per grid point."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__(config)
        self.logits = GridLogits(config.network, self.shape, outputs=1, sharpness=4.0)

    def forward(self, scenes: Scenes) -> Covariance:
        """Return R = sum_g γ_g a_g a_gᴴ / N with sum_g γ_g = 1."""
        powers = self.logits(power_maps(scenes, self.products)).squeeze(1).softmax(-1)
        return normalise(matrix=self.products.mixture(powers), eps_psd=self.eps_psd)
