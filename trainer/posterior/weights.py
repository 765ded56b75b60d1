"""Weighted draws: how many equal ones they are worth, and which one a level of weight falls on."""

import torch
from torch import Tensor


def effective_draws(log_weights: Tensor) -> Tensor:
    """Return (sum w)² / sum w² of log weights [*batch, S]: [*batch]."""
    return (2 * log_weights.logsumexp(-1) - (2 * log_weights).logsumexp(-1)).exp()


def index_at(weights: Tensor, level: Tensor) -> Tensor:
    """Return the draw at which the cumulated share of weight reaches a level in [0, 1).

    This is the inverse of the distribution function: uniform levels draw by weight, levels spread
    evenly draw systematically (Hol, Schön and Gustafsson 2006).

    Args:
        weights: [B, S], not negative, of any sum.
        level: [B, count], or [count] for all.
    """
    cumulated = weights.double().cumsum(-1)
    index = torch.searchsorted(cumulated, level * cumulated[:, -1:])
    return index.clamp(max=weights.shape[-1] - 1)
