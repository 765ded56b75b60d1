"""Networks that predict covariances, by name.

`build_network(config)` makes an `nn.Module` whose `forward(scenes)` returns a `Covariance`. To add
one: a file here, a line in `registry.NETWORKS`, and its name in `trainer.config`.
`transfer` returns the configuration of a network with weights that were trained for another scene.
"""

from .registry import build_network, transfer
