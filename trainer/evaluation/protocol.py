"""The evaluation protocol: networks and baselines on validation scenes and held-out scenes.

A network is validated after every epoch on one set of fixed scenes and evaluated once, at the end,
on another, next to the classical methods and the bound.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.config import POSTERIOR_NAME, REFINEMENTS, SceneConfig, TrainConfig, require
from trainer.covariance import Covariance, eigendecompose
from trainer.estimation import (
    COUNTERS,
    Estimates,
    Localiser,
    build_localiser,
    covariance_localiser,
    likeliest_number_on,
    refined_music,
)
from trainer.limits import LIMITS, KeptLimits, limit_tables
from trainer.posterior import PosteriorReadout, read_posterior
from trainer.scenes import Scenes

from .conditions import Conditions, Estimator, common_scenes, evaluate, evaluate_crb
from .metrics import CAP_DEG, TOLERANCE_DEG, Errors, capped_error, gospa, match, success
from .rows import ErrorsPerScene, Evaluation, EvaluationRow, to_numpy


def classical_estimator(name: str, scene: SceneConfig, device: str = "cpu") -> Estimator:
    """Return the method of that name, told the true K; the posterior is asked for K, too.

    Raises:
        ConfigError: for the posterior of a law that it does not know.
        ValueError: if there is no such method.
    """
    if name == POSTERIOR_NAME:
        return lambda scenes: _told_and_asked(scenes, scene)
    return _told(build_localiser(name, scene, device))


def posterior_readout(
    scenes: Scenes, num_sources: Tensor | None, scene: SceneConfig
) -> PosteriorReadout:
    """Return what the posterior says of scenes, with the cap and the tolerance of errors.

    Args:
        num_sources: K, [B]; None asks it.

    Raises:
        ConfigError: as `read_posterior`.
    """
    cap, tolerance = math.radians(CAP_DEG), math.radians(TOLERANCE_DEG)
    return read_posterior(scenes, scene, num_sources, cap=cap, tolerance=tolerance)


def _told_and_asked(scenes: Scenes, scene: SceneConfig) -> Estimates:
    """Return the posterior's estimates, K told, with the K that it says if it is asked."""
    told = posterior_readout(scenes, scenes.sources.num_sources, scene).estimates(scene)
    asked = posterior_readout(scenes, None, scene).num_sources
    return replace(told, source_numbers={"evidence": asked})


def network_estimator(
    covariance: Callable[[Scenes], Covariance], scene: SceneConfig, device: str = "cpu"
) -> Estimator:
    """Return MUSIC on the covariance that a function, such as a network, predicts; K is told."""
    return _told(covariance_localiser(covariance, scene, device))


def evaluate_baselines(
    config: TrainConfig,
    names: Sequence[str] | None = None,
    device: str = "cpu",
    *,
    num_sources: tuple[int, ...] | None = None,
) -> list[Evaluation]:
    """Evaluate classical methods, the bound and the limits on a configuration's held-out scenes.

    Args:
        names: by default those of `evaluation.baselines`, and the limits that are kept for K.
        num_sources: values of K, 0 for noise alone; by default 1 ... max_sources.

    Raises:
        ConfigError: if a limit is named that is not kept; the message has the command.
    """
    conditions = held_out_conditions(config, device, num_sources)
    if names is None:
        counts = {count for _, count in conditions.points()}
        known = [
            name
            for name in LIMITS
            if any(
                row["num_sources"] in counts for row in limit_tables(name, config)["evaluations"]
            )
        ]
        names = tuple(dict.fromkeys((*config.evaluation.baselines, *known)))
    return [_evaluate_baseline(name, config, conditions) for name in names]


def evaluate_limit(name: str, config: TrainConfig, counts: Sequence[int]) -> Evaluation:
    """Return the rows of a limit on a configuration's held-out scenes, as far as it is kept.

    Raises:
        ConfigError: if nothing is kept; the message has the command that computes it.
    """
    tables = limit_tables(name, config)
    rows = [row for row in tables["evaluations"] if row["num_sources"] in counts]
    scenes = [row for row in tables["scenes"] if row["num_sources"] in counts]
    require(
        bool(rows),
        f"{name} is kept for these scenes",
        "nothing",
        f"Compute it: {KeptLimits(config.scene, config.evaluation.test_seed).command()}",
    )
    columns = {
        column: np.array([row[column] for row in scenes])
        for column in ("scene_id", "snr_db", "num_sources", "capped_error")
    }
    return Evaluation(
        tuple(EvaluationRow(**row) for row in rows), ErrorsPerScene(name, success=None, **columns)
    )


def evaluate_network(
    network: nn.Module,
    config: TrainConfig,
    *,
    num_sources: tuple[int, ...] | None = None,
    refine: bool = False,
) -> Evaluation:
    """Evaluate a network on the held-out scenes of its configuration, on the device it is on.

    Args:
        num_sources: values of K, 0 for noise alone; by default 1 ... max_sources.
        refine: sharpen the estimates of MUSIC by `evaluation.refinement`, and ask the evidence of
            the snapshots for K, as `localise` does; the rows are of `network+scoring` or
            `network+judged`.
    """
    device = device_of(network)
    conditions = held_out_conditions(config, device, num_sources)
    if not refine:
        locate = covariance_localiser(network, config.scene, device)
        return evaluate(_told(locate), "network", conditions)
    how = config.evaluation.refinement or REFINEMENTS[0]

    @torch.no_grad()
    def locate_refined(scenes: Scenes) -> Estimates:
        covariance = network(scenes)
        told = scenes.sources.num_sources
        found = refined_music(scenes, covariance, told, config.scene, how)
        asked = likeliest_number_on(scenes, covariance, config.scene)
        return replace(found, source_numbers={**found.source_numbers, "evidence": asked})

    return evaluate(locate_refined, f"network+{how}", conditions)


@torch.no_grad()
def evaluate_counting(network: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Return a row per held-out scene of a configuration: the capped error and success of MUSIC,
    K told, and by each of `config.COUNT_RULES` the K of the eigenvalues and GOSPA with that K."""
    conditions = held_out_conditions(config, device_of(network))
    rows: list[dict[str, Any]] = []
    for snr_db, count in conditions.points():
        for ids in conditions.chunks():
            scenes = common_scenes(conditions, snr_db, count, ids)
            columns = _counted(network(scenes), scenes, config.scene, conditions.device)
            at = {"estimator": "network", "snr_db": snr_db, "num_sources": count}
            for i, scene_id in enumerate(ids):
                own = {name: values[i].item() for name, values in columns.items()}
                rows.append(at | {"scene_id": scene_id} | own)
    return rows


def _counted(
    covariance: Covariance, scenes: Scenes, scene: SceneConfig, device: str
) -> dict[str, NDArray[Any]]:
    """Return the columns of `evaluate_counting` for scenes of one K, [B] each."""
    locate = covariance_localiser(lambda _: covariance, scene, device)
    sources, told = scenes.sources, scenes.sources.num_sources

    def errors(count: int) -> Errors:
        return match(locate(scenes, torch.full_like(told, count)), sources)

    by_count = [errors(count) for count in range(1, scene.max_sources + 1)]
    right = by_count[int(told[0]) - 1]
    # K = 0: every source is missed
    distances = torch.stack([told / 2, *(gospa(each) for each in by_count)], dim=-1)
    columns = {"capped_error": to_numpy(capped_error(right)), "success": to_numpy(success(right))}
    values = eigendecompose(covariance).all_values
    for name, rule in COUNTERS.items():
        number = rule(values, scenes.num_snapshots, scene.max_sources)
        distance = distances.gather(-1, number.unsqueeze(-1)).squeeze(-1)
        columns[f"source_number_{name}"] = number.cpu().numpy()
        columns[f"gospa_{name}"] = to_numpy(distance)
    return columns


def validate(network: nn.Module, config: TrainConfig) -> Evaluation:
    """Evaluate a network on the validation scenes, at the SNRs of the objective, without bound.

    The scenes are the same in every call, and are kept between calls.
    """
    evaluation = config.evaluation
    device = device_of(network)
    conditions = Conditions(
        config.scene, evaluation.seed, evaluation.objective_snr_db, evaluation.num_scenes, device
    )
    estimator = network_estimator(network, config.scene, device)
    return evaluate(estimator, "network", conditions, bound=False)


def held_out_conditions(
    config: TrainConfig, device: str, num_sources: tuple[int, ...] | None = None
) -> Conditions:
    """Return the conditions of a configuration's held-out scenes."""
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


def device_of(network: nn.Module) -> str:
    """Return the name of the device that a network's weights are on."""
    return str(next(network.parameters()).device)


def _evaluate_baseline(name: str, config: TrainConfig, conditions: Conditions) -> Evaluation:
    if name == "crb":
        return evaluate_crb(conditions)
    if name in LIMITS:
        return evaluate_limit(name, config, [count for _, count in conditions.points()])
    estimator = classical_estimator(name, config.scene, conditions.device)
    return evaluate(estimator, name, conditions)


def _told(locate: Localiser) -> Estimator:
    """Return a method that is told the true K."""
    return lambda scenes: locate(scenes, scenes.sources.num_sources)
