"""Elementary operations on batches of real or complex matrices, shared by the rooms that follow.

Each is differentiable, also at 0 and inside torch.func, where |x| or a plain `x.real` is not.
"""

from .matrices import hermitian_part, inner_product, real_part, squared_magnitude, squared_norm
from .model_order import description_lengths, mdl_penalty
