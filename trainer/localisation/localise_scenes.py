"""Localisation of the sources of recorded scenes with a trained model, in one call:

    from trainer.localisation import localise
    found = localise("runs/local/best", "scenes.npz")

The network predicts a covariance, K is given or estimated from its eigenvalues, MUSIC finds K
sources, and Fisher scoring on the snapshots refines them.
"""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.config import SceneConfig, require, require_choice
from trainer.estimation import estimate_num_sources, music_with_scoring
from trainer.evaluation import confidence_features
from trainer.scenes import Scenes, load_scenes
from trainer.training import Model, load_model, resolve_device

from .adaptation import adapt_network, adapt_scene
from .checks import check_scenes, require_finite
from .diagnosis import diagnose
from .localisation import Localisation
from .vouching import vouch, withhold_reversed

BATCH_SIZE = 128
"""Scenes localised at once: large enough for the hardware, small enough for memory."""


def localise(
    model: Model | str | Path,
    scenes: Scenes | str | Path,
    *,
    num_sources: int | Literal["known", "estimated"] = "known",
    range_m: tuple[float, float] | None = None,
    azimuth_deg: float | None = None,
    elevation_deg: float | None = None,
    device: str = "auto",
    diagnosed: bool = False,
) -> Localisation:
    """Localise the sources of recorded or simulated scenes.

    Args:
        model: a model folder, the run or training that left one, or one that was loaded.
        scenes: in memory, or a recording (`recorded`).
        num_sources: K of every scene. `estimated` takes it from the widest relative gap between
            the eigenvalues of the predicted covariance; `known` takes it from the scenes, and
            estimates it where they do not have it.
        range_m: nearest and farthest range that is searched; by default that of the training.
        azimuth_deg, elevation_deg: largest angles that are searched, to both sides; by default
            those of the training.
        device: `auto` is CUDA where there is one.
        diagnosed: if many scenes do not fit, try the usual misreadings of a recording, for some
            seconds, and say in `Localisation.diagnosis` which of them fits.

    Raises:
        ConfigError: if files cannot be read, the scenes do not fit the network, or the model is
            damaged: nothing that is not finite is returned.
    """
    target = resolve_device(device)
    if not isinstance(model, Model):
        model = load_model(model, target)
    if isinstance(scenes, Scenes):
        check_scenes(scenes)
        scenes = scenes.without_dead_elements()
    else:
        scenes = load_scenes(scenes)
    weights = next(model.network.parameters())
    scenes = scenes.to(device=target, dtype=weights.dtype.to_complex())
    scene = adapt_scene(model.config.scene, scenes, range_m, azimuth_deg, elevation_deg)
    network = adapt_network(model.network, model.config, scene)
    known = _known_counts(scenes, num_sources)
    if known is not None:
        scene = replace(scene, max_sources=max(scene.max_sources, int(known.max())))
    parts = []
    for first in range(0, scenes.batch_size, BATCH_SIZE):
        part = slice(first, first + BATCH_SIZE)
        counts = None if known is None else known[part]
        parts.append(_localise(network, model, scenes.take(part), counts, scene))
    found = withhold_reversed(Localisation.concatenate(parts))
    return replace(found, diagnosis=diagnose(found, scenes, scene) if diagnosed else "")


def _known_counts(
    scenes: Scenes, num_sources: int | Literal["known", "estimated"]
) -> Tensor | None:
    """Return K of every scene, [S], or None if it is to be estimated."""
    if isinstance(num_sources, str):
        require_choice("num_sources", num_sources, ("known", "estimated"))
    else:
        whole = int(num_sources) == num_sources >= 1
        require(whole, "num_sources >= 1, whole", f"{num_sources}", "Leave it out to estimate K.")
        return scenes.snapshots.new_full((scenes.batch_size,), num_sources, dtype=torch.long)
    if scenes.truth is None or num_sources == "estimated":
        return None
    count = scenes.truth.num_sources
    least = "Drop the scenes without sources."
    require(bool((count >= 1).all()), "num_sources >= 1", f"{int(count.min())}", least)
    return count


@torch.no_grad()
def _localise(
    network: nn.Module, model: Model, scenes: Scenes, counts: Tensor | None, scene: SceneConfig
) -> Localisation:
    covariance = network(scenes)
    require_finite({"covariance": covariance.held.abs()}, model)
    if counts is None:
        counts = estimate_num_sources(covariance, scenes.num_snapshots, scene.max_sources)
    found = music_with_scoring(scenes, covariance, counts, scene)
    features = confidence_features(covariance, found, counts, scene)
    confidence = model.calibration.confidence(features) * found.scored
    places = {name: getattr(found, name) for name in ("azimuth", "elevation", "range_m")}
    require_finite(places | {"confidence": confidence}, model)
    return vouch(scenes, found, counts, scene, confidence)
