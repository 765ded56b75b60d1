"""Who is scored on which scenes: networks, and what they have to beat.

A network is validated after every epoch on one set of fixed scenes and scored once, at the end, on
another, next to the classical methods and the bound.
"""

from collections.abc import Callable, Sequence

import torch
from torch import nn

from trainer.config import SceneConfig, TrainConfig
from trainer.covariance import Covariance
from trainer.estimation import SHARPER, Method, covariance_method, method, sharpened
from trainer.scenes import Scenes

from .conditions import (
    Conditions,
    ErrorsPerScene,
    Estimator,
    Evaluation,
    EvaluationRow,
    evaluate,
    evaluate_crb,
    objective,
)

__all__ = [
    "Conditions",
    "ErrorsPerScene",
    "Evaluation",
    "EvaluationRow",
    "classical_estimator",
    "evaluate",
    "evaluate_baselines",
    "evaluate_crb",
    "evaluate_network",
    "network_estimator",
    "objective",
    "validate",
]


def classical_estimator(name: str, scene: SceneConfig, device: str = "cpu") -> Estimator:
    """The method of that name (`methods.method`), told the true K.

    Raises:
        ValueError: for a name that is none.
    """
    return _told(method(name, scene, device))


def evaluate_baselines(
    config: TrainConfig,
    names: Sequence[str] | None = None,
    device: str | None = None,
    *,
    num_sources: tuple[int, ...] | None = None,
) -> list[Evaluation]:
    """Scores classical methods and the bound on a configuration's held-out scenes.

    Args:
        names: by default those of `evaluation.baselines`.
        device: by default a GPU, where there is one and the configuration does not say `cpu`.
        num_sources: values of K, 0 being noise alone; by default 1 ... max_sources.
    """
    if device is None:
        device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    conditions = held_out_conditions(config, device, num_sources)
    return [
        evaluate_crb(conditions)
        if name == "crb"
        else evaluate(classical_estimator(name, config.scene, device), name, conditions)
        for name in (config.evaluation.baselines if names is None else names)
    ]


def network_estimator(
    covariance: Callable[[Scenes], Covariance], scene: SceneConfig, device: str = "cpu"
) -> Estimator:
    """MUSIC on the covariance that `covariance`, a network for instance, predicts; K is told."""
    return _told(covariance_method(covariance, scene, device))


def evaluate_network(
    network: nn.Module,
    config: TrainConfig,
    *,
    num_sources: tuple[int, ...] | None = None,
    fisher_scoring: bool = False,
) -> Evaluation:
    """Scores a network on the held-out scenes of its configuration, on the device it is on.

    Args:
        num_sources: values of K, 0 being noise alone; by default 1 ... max_sources.
        fisher_scoring: sharpen what MUSIC finds, as `localise` does; the row is `network+scoring`.
    """
    device = device_of(network)
    locate = covariance_method(network, config.scene, device)
    name = "network"
    if fisher_scoring:
        locate, name = sharpened(locate, config.scene, device), name + SHARPER
    return evaluate(_told(locate), name, held_out_conditions(config, device, num_sources))


def validate(network: nn.Module, config: TrainConfig) -> tuple[EvaluationRow, ...]:
    """Rows of a network on the validation scenes, at the SNRs of the objective, without bound.

    The scenes are the same in every call, and are kept between calls.
    """
    evaluation = config.evaluation
    device = device_of(network)
    conditions = Conditions(
        config.scene, evaluation.seed, evaluation.objective_snr_db, evaluation.num_scenes, device
    )
    estimate = network_estimator(network, config.scene, device)
    return evaluate(estimate, "network", conditions, bound=False).rows


def held_out_conditions(
    config: TrainConfig, device: str, num_sources: tuple[int, ...] | None = None
) -> Conditions:
    evaluation = config.evaluation
    return Conditions(
        config.scene,
        evaluation.test_seed,
        evaluation.report_snr_db,
        evaluation.num_test_scenes,
        device,
        num_sources=num_sources,
        tolerance=evaluation.tolerance,
    )


def _told(locate: Method) -> Estimator:
    return lambda scenes: locate(scenes, scenes.sources.num_sources)


def device_of(network: nn.Module) -> str:
    return str(next(network.parameters()).device)
