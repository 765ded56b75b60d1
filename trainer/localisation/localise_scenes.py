"""Localisation of the sources of recorded scenes, in one call:

    from trainer.localisation import localise
    found = localise("runs/local/best", "scenes.npz")        # with a trained model
    found = localise(method="sml", scenes="scenes.npz")      # by a classical method (`methods`)

A model's network predicts a covariance, K is given or that of the largest evidence, MUSIC finds K
sources, and Fisher scoring on the snapshots refines them.
"""

import numbers
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from trainer.config import ConfigError, SceneConfig, require, require_choice
from trainer.estimation import likeliest_number_on, refined_music
from trainer.evaluation import confidence_features
from trainer.scenes import (
    Scenes,
    broken_part,
    load_scenes,
    require_reflection,
    require_scale,
)
from trainer.training import Model, load_model, resolve_device

from .diagnosis import describe_misfits
from .localisation import Localisation, add_posterior
from .methods import (
    METHODS,
    Located,
    adapt_network,
    adapt_scene,
    default_scene,
    locate_by_method,
    locate_by_posterior,
)
from .vouching import judge_recording, vouch, withhold_reread

Locate = Callable[[Scenes, Tensor | None, SceneConfig], Located]
"""A function of scenes, K [B] or None, and the region."""
READOUTS = ("music", "posterior")
BATCH_SIZE = 128
"""Scenes localised at once: large enough for the hardware, small enough for memory."""


def localise(
    model: Model | str | Path | None = None,
    scenes: Scenes | str | Path | None = None,
    *,
    method: str | None = None,
    readout: Literal["music", "posterior"] = "music",
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
        method: a classical method in place of a model, e.g. `sml`, `lmmse_music+scoring`
            (`methods`). Its estimates have no confidence, but for those of `posterior`.
        readout: of a model: `music` on the covariance of its network, or the `posterior` of
            places under the law of its scenes, which does not need the network.
        num_sources: K of every scene. `estimated` takes it from the evidence of the snapshots, 0
            included (a model, `posterior`), from the likelihood (`sml`) or from the widest
            relative gap between the eigenvalues of the covariance (other methods); `known` takes
            it from the scenes, and estimates it where they do not have it.
        range_m: nearest and farthest range that is searched; by default that of the training, or
            `methods.default_scene`.
        azimuth_deg, elevation_deg: largest angles that are searched, to both sides; by default
            likewise.
        device: `auto` is CUDA where there is one.
        diagnosed: if many scenes do not fit, try the usual misreadings of a recording, for some
            seconds, and say in `Localisation.diagnosis` which of them fits.

    Raises:
        ConfigError: if files cannot be read, the scenes do not fit the network, or the model is
            damaged: nothing that is not finite is returned.
    """
    given = [name for name, value in (("model", model), ("method", method)) if value is not None]
    rule = "either a model or a method is given"
    require(len(given) == 1, rule, " and ".join(given) or "none", "Choose one: method='sml'.")
    if scenes is None:
        raise ConfigError("`scenes` must be given, but got None. Name a recording.")
    target = resolve_device(device)
    kinds, got = (Scenes, str, Path), type(scenes).__name__
    arrays = "Of a dict of arrays hand over trainer.scenes.scenes_of_arrays(arrays)."
    require(isinstance(scenes, kinds), "scenes is Scenes or the path of a recording", got, arrays)
    known_kind, got = isinstance(model, Model | str | Path | None), type(model).__name__
    require(known_kind, "model is a Model or a path", got, "Name a model folder.")
    if isinstance(scenes, Scenes):
        _check_scenes(scenes)
        scenes = scenes.without_dead_elements()
    else:
        scenes = load_scenes(scenes)
    scenes = scenes.to(device=target).in_usual_units()
    region = range_m, azimuth_deg, elevation_deg
    require_choice("readout", readout, READOUTS)
    if model is None:
        require_choice("method", method, METHODS)
        rule = "readout is music unless a model is given"
        require(readout == "music", rule, readout, "Say --method posterior instead of it.")
        scenes = scenes.to(dtype=torch.complex64)
        scene = adapt_scene(default_scene(scenes, str(method)), scenes, *region)
        locate: Locate = partial(locate_by_method, str(method))
    else:
        loaded = model if isinstance(model, Model) else load_model(model, target)
        scenes = scenes.to(dtype=next(loaded.network.parameters()).dtype.to_complex())
        scene = adapt_scene(loaded.config.scene, scenes, *region)
        if readout == "posterior":
            locate = locate_by_posterior
        else:
            network = adapt_network(loaded.network, loaded.config, scene)
            locate = partial(_locate_by_model, loaded, network)
    known = known_counts(scenes, num_sources)
    if known is not None:
        least = 1 if model is None else scene.max_sources
        scene = replace(scene, max_sources=max(least, int(known.max())))
    found = localise_by(locate, scenes, known, scene)
    return replace(found, diagnosis=describe_misfits(found, scenes, scene) if diagnosed else "")


def localise_by(
    locate: Locate,
    scenes: Scenes,
    known: Tensor | None,
    scene: SceneConfig,
) -> Localisation:
    """Return what a method or model finds in scenes, and what it is worth.

    Args:
        known: K, [S]; None estimates it.
        scene: the region; its `max_sources` is the number of columns.
    """
    parts = []
    for first in range(0, scenes.batch_size, BATCH_SIZE):
        part = slice(first, first + BATCH_SIZE)
        counts = None if known is None else known[part]
        located = locate(scenes.take(part), counts, scene)
        vouched = vouch(
            scenes.take(part), located.found, located.num_sources, scene, located.confidence
        )
        parts.append(add_posterior(vouched, located.posterior))
    return withhold_reread(judge_recording(Localisation.concatenate(parts)), scenes, scene)


def known_counts(
    scenes: Scenes, num_sources: int | Literal["known", "estimated"]
) -> Tensor | None:
    """Return K of every scene, [S], or None if it is to be estimated.

    Raises:
        ConfigError: for K of 0, or for as many sources as antennas, if there are two or more.
    """
    if isinstance(num_sources, str):
        require_choice("num_sources", num_sources, ("known", "estimated"))
    else:
        whole = isinstance(num_sources, numbers.Real) and not isinstance(num_sources, bool)
        whole = whole and num_sources >= 1 and num_sources % 1 == 0
        require(whole, "num_sources >= 1, whole", f"{num_sources}", "Leave it out to estimate K.")
        _require_fewer(int(num_sources), scenes.num_antennas)
        return scenes.snapshots.new_full((scenes.batch_size,), num_sources, dtype=torch.long)
    if scenes.truth is None or num_sources == "estimated":
        return None
    count = scenes.truth.num_sources
    least = "Drop the scenes without sources."
    require(bool((count >= 1).all()), "num_sources >= 1", f"{int(count.min())}", least)
    _require_fewer(int(count.max()), scenes.num_antennas)
    return count


def _require_fewer(num_sources: int, num_antennas: int) -> None:
    most = max(1, num_antennas - 1)
    require(
        num_sources <= most,
        "num_sources < num_antennas (or 1)",
        f"num_sources={num_sources}, num_antennas={num_antennas}",
        f"As many amplitudes would explain any snapshots. Give at most --num-sources {most}.",
    )


@torch.no_grad()
def _locate_by_model(
    model: Model, network: nn.Module, scenes: Scenes, counts: Tensor | None, scene: SceneConfig
) -> Located:
    covariance = network(scenes)
    _require_finite_output({"covariance": covariance.held.abs()}, model)
    asked = counts is None
    if counts is None:
        counts = likeliest_number_on(scenes, covariance, scene)
    how = model.config.evaluation.refinement
    found = refined_music(scenes, covariance, counts, scene, how)
    places = {name: getattr(found, name) for name in ("azimuth", "elevation", "range_m")}
    trained, sizes = model.config.scene, ("num_elements", "num_antennas", "num_snapshots")
    if any(getattr(scene, size) != getattr(trained, size) for size in sizes):
        _require_finite_output(places, model)
        return Located(found, counts, None)  # confidence was calibrated for other data
    features = confidence_features(covariance, found, counts, scene)
    confidence = model.calibration.confidence(features, asked=asked) * found.scored
    _require_finite_output(places | {"confidence": confidence}, model)
    return Located(found, counts, confidence)


def _check_scenes(scenes: Scenes) -> None:
    """Check scenes made in memory like those of a recording.

    Silent scenes are allowed: none of their sources is resolved.

    Raises:
        ConfigError: if an array is not complex, finite, of the right shape and of a usable scale,
            or codes are no reflection coefficients.
    """
    shape, elements = scenes.snapshots.shape, scenes.panel.num_elements
    valid = len(shape) == 3 and scenes.snapshots.numel() > 0
    require(valid, "snapshots has shape [B, L, M]", f"{list(shape)}", "Put antennas last.")
    size, snapshots, antennas = shape
    shapes = {
        "snapshots": shape,
        "channel": (size, antennas, elements),
        "codes": (size, snapshots, elements),
    }
    for name, expected in shapes.items():
        value = getattr(scenes, name)
        rule = f"{name} has shape {list(expected)}"
        fits = "It must match snapshots [B, L, M] and the elements of the panel."
        require(value.shape == expected, rule, f"{list(value.shape)}", fits)
        require(value.is_complex(), f"{name} is complex", f"{value.dtype}", "Convert it.")
        peaks = value.abs().flatten(1).amax(-1)
        bad = (~torch.isfinite(peaks)).nonzero().flatten().tolist()
        which = f"{len(bad)} scenes that are not, {', '.join(map(str, bad[:4]))} first"
        finite = torch.isfinite(torch.view_as_real(value)).all(-1).cpu().numpy()
        part = "" if name == "codes" or not bad else broken_part(name, finite)
        require(not bad, f"{name} is finite", which, part or "Leave these scenes out.")
        require_scale(name, peaks[peaks > 0].cpu().numpy())
    require_reflection(scenes.codes.cpu().numpy())


def _require_finite_output(values: dict[str, Tensor], model: Model) -> None:
    """Check that all numbers are finite.

    Raises:
        ConfigError: if one is not.
    """
    for name, value in values.items():
        bad = (~torch.isfinite(value)).flatten(1).any(-1)
        if bad.any():
            weights = all(torch.isfinite(p).all() for p in model.network.parameters())
            way = "Leave those scenes out" if weights else "It is damaged: restore it from a copy"
            raise ConfigError(
                f"a model's estimates must be finite, but its {name} is not in {int(bad.sum())} "
                f"of {len(bad)} scenes. {way}."
            )
