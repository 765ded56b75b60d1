"""Localisers by name.

A name is `sml`, or `<covariance>_<estimator>` with one of `COVARIANCES` and one of `ESTIMATORS`;
`+scoring` behind a name adds Fisher scoring on the snapshots. A network is a covariance, too
(`covariance_localiser`).
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from trainer.config import SceneConfig
from trainer.covariance import (
    Covariance,
    lmmse,
    normalise,
    pinv,
    sample_covariance,
    true_factor,
)
from trainer.scenes import Scenes, SearchGrid, search_grid

from .estimates import Estimates
from .fisher_scoring import judge_by_likelihood, refine_by_fisher_scoring
from .maximum_likelihood import sml
from .pseudospectra import ESTIMATORS
from .source_number import estimate_num_sources, likeliest_number, most_likely_number
from .sparse_fit import sparse_covariance

Localiser = Callable[[Scenes, Tensor], Estimates]
"""A function of scenes and K [B] that returns estimates with `max_sources` slots."""

MVDR_LOADING = 1.0
"""Diagonal loading of MVDR's covariance, relative to tr(R) / N; back-projections have rank L < N.
Of .03, .1, .3 and 1, the one with least capped error on 6x6 and 12x12 panels, at -5 ... 5 dB."""
SCORING_SUFFIX = "+scoring"
"""End of the name of a localiser with Fisher scoring."""

COVARIANCES: dict[str, Callable[[Scenes, SearchGrid], Covariance]] = {
    "pinv": lambda scenes, search: sample_covariance(pinv(scenes)),
    "lmmse": lambda scenes, search: sample_covariance(lmmse(scenes)),
    "sparse": lambda scenes, search: normalise(
        matrix=sparse_covariance(scenes, search), eps_psd=0.0
    ),
    "exact": lambda scenes, search: normalise(factor=true_factor(scenes), eps_psd=0.0),
}
"""Covariances of scenes by name; `exact` is the truth."""


def build_localiser(name: str, scene: SceneConfig, device: str = "cpu") -> Localiser:
    """Return the localiser of that name, for a panel and region.

    Raises:
        ValueError: if there is no such localiser.
    """
    search = search_grid(scene, torch.float32, device)
    if name.endswith(SCORING_SUFFIX):
        plain = build_localiser(name.removesuffix(SCORING_SUFFIX), scene, device)
        return with_fisher_scoring(plain, scene, device)
    if name == "sml":
        return lambda scenes, count: sml(scenes, count, search, slots=scene.max_sources)
    kind, _, estimator = name.partition("_")
    if kind not in COVARIANCES or estimator not in ESTIMATORS:
        raise ValueError(
            f"an estimator's name is sml or <{'|'.join(COVARIANCES)}>_<{'|'.join(ESTIMATORS)}>, "
            f"with or without {SCORING_SUFFIX}, but got {name!r}. Correct its name."
        )
    loading = MVDR_LOADING / scene.num_elements if estimator == "mvdr" else 0.0
    return covariance_localiser(
        lambda scenes: COVARIANCES[kind](scenes, search),
        scene,
        device,
        estimator=estimator,
        loading=loading,
    )


def build_source_counter(
    name: str, scene: SceneConfig, device: str = "cpu"
) -> Callable[[Scenes], Tensor]:
    """Return the rule by which a method estimates K in 1 ... `scene.max_sources`: scenes -> [B].

    `sml` uses the likelihood of the snapshots, the others the widest relative eigengap of their
    covariance.
    """
    search, most = search_grid(scene, torch.float32, device), scene.max_sources
    kind = name.removesuffix(SCORING_SUFFIX).partition("_")[0]
    if kind == "sml":
        return lambda scenes: most_likely_number(scenes, search, most)
    return lambda scenes: estimate_num_sources(
        COVARIANCES[kind](scenes, search), scenes.num_snapshots, most
    )


def covariance_localiser(
    covariance: Callable[[Scenes], Covariance],
    scene: SceneConfig,
    device: str = "cpu",
    *,
    estimator: str = "music",
    loading: float = 0.0,
) -> Localiser:
    """Return an estimator on the covariance that a function, such as a network, predicts."""
    search = search_grid(scene, torch.float32, device)

    @torch.no_grad()
    def locate(scenes: Scenes, count: Tensor) -> Estimates:
        found = ESTIMATORS[estimator](
            covariance(scenes),
            count,
            search,
            slots=scene.max_sources,
            num_snapshots=scenes.num_snapshots,
            loading=loading,
        )
        measured = (scenes.snapshots != 0).flatten(1).any(-1, keepdim=True)
        return replace(found, resolved=found.resolved & measured, separate=found.scored)

    return locate


def with_fisher_scoring(locate: Localiser, scene: SceneConfig, device: str = "cpu") -> Localiser:
    """Return a localiser followed by Fisher scoring on the snapshots."""
    search = search_grid(scene, torch.float32, device)
    return lambda scenes, count: refine_by_fisher_scoring(scenes, locate(scenes, count), search)


def refined(
    locate: Localiser, scene: SceneConfig, device: str = "cpu", how: str | None = None
) -> Localiser:
    """Return a localiser followed by one of `config.REFINEMENTS`; None is `scoring`."""
    if how != "judged":
        return with_fisher_scoring(locate, scene, device)
    search = search_grid(scene, torch.float32, device)
    return lambda scenes, count: judge_by_likelihood(scenes, locate(scenes, count), search)


def refined_music(
    scenes: Scenes,
    covariance: Covariance,
    count: Tensor,
    scene: SceneConfig,
    how: str | None = None,
) -> Estimates:
    """Return MUSIC estimates on a covariance, refined on the snapshots (`refined`)."""
    device = str(scenes.snapshots.device)
    music = covariance_localiser(lambda _: covariance, scene, device)
    return refined(music, scene, device, how)(scenes, count)


def likeliest_number_on(scenes: Scenes, covariance: Covariance, scene: SceneConfig) -> Tensor:
    """Return K in 0 ... `scene.max_sources` by the evidence at MUSIC's places, [B]."""
    device = str(scenes.snapshots.device)
    music = covariance_localiser(lambda _: covariance, scene, device)
    search = search_grid(scene, torch.float32, device)
    return likeliest_number(scenes, music, search, scene.max_sources)
