"""Who is scored on which scenes: networks, and what they have to beat.

A network is validated after every epoch on one set of fixed scenes and scored once, at the end, on
another, next to the classical methods and the bound.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import nn

from .backprojection import lmmse, pinv, sample_covariance
from .config import SceneConfig, TrainConfig
from .covariance import Covariance, normalise, true_factor
from .estimates import Estimates
from .estimators import ESTIMATORS, music
from .scene import Scenes
from .scoring import (
    Conditions,
    Estimate,
    EvaluationRow,
    SceneErrors,
    Scored,
    objective,
    score,
    score_crb,
)
from .search_grid import SearchGrid, search_grid
from .sml import sml
from .sparse import sparse_covariance

__all__ = [
    "BASELINES",
    "Conditions",
    "EvaluationRow",
    "SceneErrors",
    "Scored",
    "baselines",
    "classical",
    "network_estimate",
    "objective",
    "score",
    "score_crb",
    "score_network",
    "validate",
]

MVDR_LOADING = 1.0
"""Diagonal loading of MVDR's covariance, relative to tr(R)/N; back-projections have rank L < N.
Of .03, .1, .3 and 1 the one with least capped error on 6x6 and 12x12 panels, at -5 ... 5 dB."""

BASELINES = ("crb", "lmmse_music", "pinv_music", "lmmse_mvdr", "lmmse_beamformer")
"""What a search is held against, the bound first."""


COVARIANCES: dict[str, Callable[[Scenes, SearchGrid], Covariance]] = {
    "pinv": lambda scenes, search: sample_covariance(pinv(scenes)),
    "lmmse": lambda scenes, search: sample_covariance(lmmse(scenes)),
    "sparse": lambda scenes, search: normalise(
        matrix=sparse_covariance(scenes, search), eps_psd=0.0
    ),
    "exact": lambda scenes, search: normalise(factor=true_factor(scenes), eps_psd=0.0),
}
"""Covariances that estimators can be put on, `exact` being the truth."""


def classical(name: str, scene: SceneConfig, device: str = "cpu") -> Estimate:
    """`sml`, or `<covariance>_<estimator>`: an estimator on a covariance of `COVARIANCES`.

    Raises:
        ValueError: for a name that is none.
    """
    search = search_grid(scene, torch.float32, device)
    if name == "sml":
        return lambda scenes: sml(
            scenes, scenes.sources.num_sources, search, slots=scene.max_sources
        )
    kind, _, method = name.partition("_")
    if kind not in COVARIANCES or method not in ESTIMATORS:
        raise ValueError(
            f"an estimator's name is sml or <{'|'.join(COVARIANCES)}>_<{'|'.join(ESTIMATORS)}>, "
            f"but got {name!r}. Correct its name."
        )

    def estimate(scenes: Scenes) -> Estimates:
        covariance = COVARIANCES[kind](scenes, search)
        if method == "mvdr":
            loading = covariance.shift + MVDR_LOADING / covariance.num_elements
            covariance = replace(covariance, shift=loading)
        return ESTIMATORS[method](
            covariance,
            scenes.sources.num_sources,
            search,
            slots=scene.max_sources,
            num_snapshots=scenes.num_snapshots,
        )

    return estimate


def baselines(
    config: TrainConfig, names: Sequence[str] = BASELINES, device: str | None = None
) -> list[Scored]:
    """Scores classical methods and the bound on a configuration's held-out scenes.

    Args:
        device: by default a GPU, where there is one and the configuration does not say `cpu`.
    """
    if device is None:
        device = "cuda" if config.device != "cpu" and torch.cuda.is_available() else "cpu"
    conditions = _held_out(config, device)
    return [
        score_crb(conditions)
        if name == "crb"
        else score(classical(name, config.scene, device), name, conditions)
        for name in names
    ]


def network_estimate(
    covariance: Callable[[Scenes], Covariance], scene: SceneConfig, device: str = "cpu"
) -> Estimate:
    """MUSIC on the covariance that `covariance`, a network for instance, predicts."""
    search = search_grid(scene, torch.float32, device)

    @torch.no_grad()
    def estimate(scenes: Scenes) -> Estimates:
        return music(
            covariance(scenes),
            scenes.sources.num_sources,
            search,
            slots=scene.max_sources,
            num_snapshots=scenes.num_snapshots,
        )

    return estimate


def score_network(network: nn.Module, config: TrainConfig) -> Scored:
    """Scores a network on the held-out scenes of its configuration, on the device it is on."""
    device = _device_of(network)
    estimate = network_estimate(network, config.scene, device)
    return score(estimate, "network", _held_out(config, device))


def validate(network: nn.Module, config: TrainConfig) -> tuple[EvaluationRow, ...]:
    """Rows of a network on the validation scenes, at the SNRs of the objective, without bound.

    The scenes are the same in every call, and are kept between calls.
    """
    evaluation = config.evaluation
    device = _device_of(network)
    conditions = Conditions(
        config.scene, evaluation.seed, evaluation.objective_snr_db, evaluation.num_scenes, device
    )
    estimate = network_estimate(network, config.scene, device)
    return score(estimate, "network", conditions, bound=False).rows


def _held_out(config: TrainConfig, device: str) -> Conditions:
    evaluation = config.evaluation
    return Conditions(
        config.scene,
        evaluation.test_seed,
        evaluation.report_snr_db,
        evaluation.num_test_scenes,
        device,
    )


def _device_of(network: nn.Module) -> str:
    return str(next(network.parameters()).device)
