"""Networks that predict covariances, by name.

`build_network(config)` makes an `nn.Module` whose `forward(scenes)` returns a `Covariance`. To add
one: a file here, a line in `registry.NETWORKS`, and its name in `trainer.config`.
"""

from .registry import build_network
