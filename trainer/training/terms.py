"""The loss terms by name, a user's included, and their weighted total, which a training minimises.

The eigengap term is guarded: `eigengap.on_failure` decides about samples whose term, or its
gradient, is not finite; samples that are left out or replaced are counted.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.covariance import Covariance, signal_basis
from trainer.evaluation import common_scenes, device_of, held_out_conditions
from trainer.scenes import Scenes
from trainer.spectral import Guarded, dominance_loss, eigengap_loss, guard, spectrum
from trainer.user_code import CodeError, bind

BUILT_IN = ("covariance", "eigengap", "total")
COUNTED = ("norm", "skipped", "replaced")
"""Numbers of a step that are not loss terms."""


@dataclass(frozen=True)
class LossTerms:
    """Every loss term, unweighted and averaged over the batch.

    Attributes:
        values: term -> scalar.
        skipped, replaced: number of samples that the fallback policy left out, or gave the
            proxy's term.
    """

    values: dict[str, Tensor]
    skipped: Tensor
    replaced: Tensor

    def total(self, config: TrainConfig) -> Tensor:
        """Return the loss that is minimised: covariance NMSE plus the other terms, weighted."""
        total = self.values["covariance"]
        if "eigengap" in self.values:
            total = total + config.eigengap.weight * self.values["eigengap"]
        for name in self.values.keys() - set(BUILT_IN):
            total = total + (config.loss.weight or 0.0) * self.values[name]
        return total


def loss_terms(covariance: Covariance, scenes: Scenes, config: TrainConfig) -> LossTerms:
    """Compute the covariance NMSE, and the eigengap term and the user's if they have a weight."""
    values = {"covariance": covariance.nmse(scenes).mean()}
    if config.loss.term is not None:
        name = config.loss.term.rpartition(":")[2]
        values[name] = own_term(covariance, scenes, config).mean()
    none = torch.zeros((), dtype=torch.long, device=scenes.snapshots.device)
    if config.eigengap.weight == 0:
        return LossTerms(values, none, none)
    guarded = eigengap_term(covariance, scenes, config)
    values["eigengap"] = guarded.mean()
    return LossTerms(values, guarded.skipped, guarded.replaced)


def own_term(covariance: Covariance, scenes: Scenes, config: TrainConfig) -> Tensor:
    """Compute the user's loss term, [B]; raise CodeError if it returns anything else."""
    term = config.loss.term
    assert term is not None, "a weighted term has a name"
    value = _own_function(term, config.loss.sha256, config.loss.args)(covariance, scenes)
    if not isinstance(value, Tensor):
        raise CodeError(f"`{term}` must return a tensor, but returned a {type(value).__name__}.")
    shape = tuple(value.shape)
    if shape != (scenes.batch_size,) or not value.is_floating_point():
        raise CodeError(
            f"`{term}` must return one real number for each of {scenes.batch_size} scenes, but "
            f"returned {shape} of {value.dtype}. Leave the mean over scenes to the training."
        )
    if covariance.held.requires_grad and not value.requires_grad:
        raise CodeError(
            f"`{term}` must be differentiable in the covariance, but has no gradient: it would "
            "train nothing. Leave out .detach(), torch.no_grad and NumPy."
        )
    return value


@lru_cache(maxsize=8)  # looked up at every step
def _own_function(
    term: str, sha256: str | None, args: tuple[tuple[str, Any], ...]
) -> Callable[[Covariance, Scenes], Tensor]:
    if term.rpartition(":")[2] in (*BUILT_IN, *COUNTED):
        raise CodeError(f"`{term}` must not be called as a term that there is. Rename it.")
    return bind(term, sha256, ("covariance", "scenes"), args)


def eigengap_term(covariance: Covariance, scenes: Scenes, config: TrainConfig) -> Guarded:
    """Compute the eigengap loss per sample, with the configured backend and fallback policy."""

    def proxy(held: Tensor) -> Tensor:
        return dominance_loss(held if covariance.factor is None else held @ held.mH)

    policy = config.eigengap.on_failure
    return guard(
        eigengap_hinge(covariance, scenes, config),
        covariance.held,
        on_failure=policy,
        proxy=proxy if policy == "proxy" else None,
    )


def eigengap_hinge(
    covariance: Covariance, scenes: Scenes, config: TrainConfig
) -> Callable[[Tensor], Tensor]:
    """Return the unguarded eigengap loss [B], a function of the matrix or factor of R."""
    eigengap, definition = config.eigengap, config.eigengap.definition
    assert definition is not None, "a weighted eigengap has a definition"
    target = signal_basis(scenes) if definition == "subspace" else None
    counted = {"num_snapshots": scenes.snapshots.shape[1], "max_sources": config.scene.max_sources}
    orders = counted if definition == "count" else {}

    def term(held: Tensor) -> Tensor:
        return eigengap_loss(
            spectrum(
                **covariance.spectral_input(held),
                backend=config.spectral.backend,
                deg_thresh=config.spectral.deg_thresh,
            ),
            scenes.sources.num_sources,
            definition=definition,
            margin=eigengap.active_margin,
            target=target,
            **orders,
        )

    return term


def hinge_rows(network: nn.Module, config: TrainConfig, num_scenes: int) -> list[dict[str, float]]:
    """Evaluate the eigengap term of `config` on a network that may have been trained without it.

    Each row has the mean and the share above 0, at one SNR and K of the held-out scenes.

    Args:
        num_scenes: per SNR and K; at most as many as are held out.
    """
    rows = []
    conditions = held_out_conditions(config, device_of(network))
    for snr_db, count in conditions.points():
        scenes = common_scenes(conditions, snr_db, count, range(num_scenes))
        with torch.no_grad():
            covariance = network(scenes)
            hinge = eigengap_hinge(covariance, scenes, config)(covariance.held).double()
        rows.append(
            {
                "snr_db": snr_db,
                "num_sources": count,
                "hinge": float(hinge.mean()),
                "hinge_active": float((hinge > 0).double().mean()),
            }
        )
    return rows
