"""The eigengap term on networks that need not have been trained with it."""

import torch
from torch import nn

from trainer.config import TrainConfig
from trainer.evaluation import common_scenes, device_of, held_out_conditions

from .terms import eigengap_hinge


def hinges(network: nn.Module, config: TrainConfig, num_scenes: int) -> list[dict[str, float]]:
    """The eigengap term that `config` weighs, on a network that need not have been trained with
    it: mean and share above 0, a row per SNR and K of the held-out scenes.

    Args:
        num_scenes: of each; at most as many as are held out.
    """
    rows = []
    conditions = held_out_conditions(config, device_of(network))
    for snr_db, count in conditions.points():
        scenes = common_scenes(
            config.scene, conditions.seed, snr_db, count, range(num_scenes), conditions.device
        )
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
