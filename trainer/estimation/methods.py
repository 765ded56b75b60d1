"""Localisation methods by name: what they make of scenes and a number of sources.

A method is `sml`, or `<covariance>_<estimator>`, an estimator put on one of `COVARIANCES`; a
network is a covariance too. `+scoring` behind a name sharpens what the method finds (`one_step`).
Scores tell methods the true K; recorded data have none, and `localise` asks the eigenvalues of a
covariance instead, where it is not told.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from trainer.config import SceneConfig
from trainer.covariance import (
    Covariance,
    lmmse,
    modes,
    normalise,
    pinv,
    sample_covariance,
    true_factor,
)
from trainer.scenes import Panel, Scenes, SearchGrid, search_grid

from .estimates import Estimates
from .estimators import ESTIMATORS
from .fisher_scoring import one_step
from .maximum_likelihood import sml
from .source_number import SOURCE_NUMBERS
from .sparse import sparse_covariance

Method = Callable[[Scenes, Tensor], Estimates]
"""Scenes and K [B] -> estimates with `max_sources` slots."""

MVDR_LOADING = 1.0
"""Diagonal loading of MVDR's covariance, relative to tr(R)/N; back-projections have rank L < N.
Of .03, .1, .3 and 1 the one with least capped error on 6x6 and 12x12 panels, at -5 ... 5 dB."""

SHARPER = "+scoring"

COVARIANCES: dict[str, Callable[[Scenes, SearchGrid], Covariance]] = {
    "pinv": lambda scenes, search: sample_covariance(pinv(scenes)),
    "lmmse": lambda scenes, search: sample_covariance(lmmse(scenes)),
    "sparse": lambda scenes, search: normalise(
        matrix=sparse_covariance(scenes, search), eps_psd=0.0
    ),
    "exact": lambda scenes, search: normalise(factor=true_factor(scenes), eps_psd=0.0),
}
"""Covariances that estimators can be put on, `exact` being the truth."""


def method(name: str, scene: SceneConfig, device: str = "cpu") -> Method:
    """The method of that name, for a panel and region.

    Raises:
        ValueError: for a name that is none.
    """
    search = search_grid(scene, torch.float32, device)
    name, plus, _ = name.partition(SHARPER)
    if plus:
        return sharpened(method(name, scene, device), scene, device)
    if name == "sml":
        return lambda scenes, count: sml(scenes, count, search, slots=scene.max_sources)
    kind, _, estimator = name.partition("_")
    if kind not in COVARIANCES or estimator not in ESTIMATORS:
        raise ValueError(
            f"an estimator's name is sml or <{'|'.join(COVARIANCES)}>_<{'|'.join(ESTIMATORS)}>, "
            f"with or without {SHARPER}, but got {name!r}. Correct its name."
        )

    loading = MVDR_LOADING / scene.num_elements if estimator == "mvdr" else 0.0
    return covariance_method(
        lambda scenes: COVARIANCES[kind](scenes, search),
        scene,
        device,
        estimator=estimator,
        loading=loading,
    )


def covariance_method(
    covariance: Callable[[Scenes], Covariance],
    scene: SceneConfig,
    device: str = "cpu",
    *,
    estimator: str = "music",
    loading: float = 0.0,
) -> Method:
    """An estimator on the covariance that a function, a network for instance, makes of scenes."""
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
        heard = (scenes.snapshots != 0).flatten(1).any(-1, keepdim=True)
        return replace(found, resolved=found.resolved & heard, separate=found.scored)

    return locate


def sharpened(locate: Method, scene: SceneConfig, device: str = "cpu") -> Method:
    """A method, and Fisher scoring on the snapshots from where it ends."""
    search = search_grid(scene, torch.float32, device)
    return lambda scenes, count: one_step(scenes, locate(scenes, count), search)


def read(scenes: Scenes, covariance: Covariance, count: Tensor, scene: SceneConfig) -> Estimates:
    """How the covariance of a trained network is read: MUSIC and scoring."""
    device = str(scenes.snapshots.device)
    music = covariance_method(lambda _: covariance, scene, device)
    return sharpened(music, scene, device)(scenes, count)


def localise(
    scenes: Scenes,
    locate: Method,
    scene: SceneConfig,
    *,
    num_sources: int | Tensor | None = None,
    covariance: Callable[[Scenes], Covariance] | None = None,
) -> Estimates:
    """Sources of scenes that need not know them, recorded ones for instance.

    Args:
        locate: a method made for the same `scene`.
        scene: panel and region, and `max_sources`, the most that are looked for.
        num_sources: K, or [B]; by default the widest relative eigengap of `covariance` says it.
        covariance: by default the LMMSE back-projection's.

    Raises:
        ValueError: if the scenes are of another panel, or K is not in 1 ... max_sources.
    """
    if scenes.panel != Panel.from_config(scene):
        raise ValueError(
            f"scenes and region must have one panel, but got {scenes.panel} and "
            f"{Panel.from_config(scene)}. Describe the recording's panel in the configuration."
        )
    device = scenes.snapshots.device
    if num_sources is None:
        held = (covariance or (lambda s: sample_covariance(lmmse(s))))(scenes)
        values = modes(held).all_values
        count = SOURCE_NUMBERS["ratio"](values, scenes.num_snapshots, scene.max_sources)
    else:
        count = torch.as_tensor(num_sources, device=device).expand(scenes.batch_size)
        if bool((count < 1).any()) or bool((count > scene.max_sources).any()):
            raise ValueError(
                f"`1 <= num_sources <= max_sources` must hold, but got {num_sources=}, "
                f"max_sources={scene.max_sources}. Raise scene.max_sources."
            )
    return locate(scenes, count)
