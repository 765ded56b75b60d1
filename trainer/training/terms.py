"""The loss terms by name, and their weighted total, which a training minimises.

The eigengap term is guarded: `eigengap.on_failure` decides about samples whose term, or its
gradient, is not finite; samples that are left out or replaced are counted.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainer.config import TrainConfig
from trainer.covariance import Covariance, signal_basis
from trainer.evaluation import common_scenes, device_of, held_out_conditions
from trainer.scenes import Scenes
from trainer.spectral import Guarded, dominance_loss, eigengap_loss, guard, spectrum


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
        """Return the loss that is minimised: covariance NMSE plus the weighted eigengap term."""
        total = self.values["covariance"]
        if "eigengap" in self.values:
            total = total + config.eigengap.weight * self.values["eigengap"]
        return total


def loss_terms(covariance: Covariance, scenes: Scenes, config: TrainConfig) -> LossTerms:
    """Compute the covariance NMSE, and the eigengap term if it has a weight."""
    values = {"covariance": covariance.nmse(scenes).mean()}
    none = torch.zeros((), dtype=torch.long, device=scenes.snapshots.device)
    if config.eigengap.weight == 0:
        return LossTerms(values, none, none)
    guarded = eigengap_term(covariance, scenes, config)
    values["eigengap"] = guarded.mean()
    return LossTerms(values, guarded.skipped, guarded.replaced)


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
