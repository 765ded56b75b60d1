"""Localisation of the sources of recorded scenes with a trained model, in one call:

    from trainer.training import localise
    found = localise("runs/local/best", "scenes.npz")

The network predicts a covariance, K is given or estimated from its eigenvalues, MUSIC finds K
sources, and Fisher scoring on the snapshots refines them. Weights serve other panels, antennas and
numbers of snapshots than they were trained on; only the number of range planes of the dictionary
must be the same, because range planes are channels of the convolutions.
"""

import dataclasses
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.atomic import write_atomically
from trainer.config import ConfigError, SceneConfig, TrainConfig, require, require_choice
from trainer.covariance import PLANE_PHASE, POINTS_PER_BEAM
from trainer.estimation import estimate_num_sources, music_with_scoring
from trainer.evaluation import confidence_features
from trainer.networks import build_network
from trainer.scenes import Scenes, grid_shape, load_scenes, require_scale

from .loop import resolve_device
from .model import Model, load_model

BATCH_SIZE = 128
"""Scenes localised at once: large enough for the hardware, small enough for memory."""


@dataclass(frozen=True)
class Localisation:
    """Places of the sources of S scenes, up to K each, all finite.

    Attributes:
        azimuth, elevation: [S, K] [rad].
        range_m: [S, K] [m].
        confidence: [S, K], probability of lying within 5° and 5° of a source
            (`evaluation.confidence`); 0 in inactive slots.
        active: [S, K], slots that hold an estimate: the first `num_sources` of a scene. The
            others hold the centre of the region.
        resolved: [S, K], estimates that stand out from noise (`estimation.estimates`); the others
            are best guesses.
        num_sources: [S], K as given or estimated.
    """

    azimuth: NDArray[np.float32]
    elevation: NDArray[np.float32]
    range_m: NDArray[np.float32]
    confidence: NDArray[np.float32]
    active: NDArray[np.bool_]
    resolved: NDArray[np.bool_]
    num_sources: NDArray[np.int64]

    def save(self, path: str | Path) -> None:
        """Write the arrays to an `.npz` file, whole or not at all.

        Raises:
            ConfigError: if it cannot be written.
        """
        path = Path(path)
        require(path.suffix == ".npz", "--out ends in .npz", f"{path}", "Rename it.")
        arrays: dict[str, Any] = self.arrays()
        content = io.BytesIO()
        np.savez(content, **arrays)
        try:
            write_atomically(path, content.getvalue())
        except OSError as error:
            raise ConfigError(
                f"--out must be a file that can be written, but {path} is not ({error.strerror}). "
                "Choose another."
            ) from error

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """Join the scenes of several parts, in this order."""
        names = parts[0].arrays()
        return cls(**{name: np.concatenate([p.arrays()[name] for p in parts]) for name in names})


def localise(
    model: Model | str | Path,
    scenes: Scenes | str | Path,
    *,
    num_sources: int | Literal["known", "estimated"] = "known",
    range_m: tuple[float, float] | None = None,
    device: str = "auto",
) -> Localisation:
    """Localise the sources of recorded or simulated scenes.

    Args:
        model: a model folder, the run or training that left one, or one that was loaded.
        scenes: in memory, or a recording (`recorded`).
        num_sources: K of every scene. `estimated` takes it from the widest relative gap between
            the eigenvalues of the predicted covariance; `known` takes it from the scenes, and
            estimates it where they do not have it.
        range_m: nearest and farthest range that is searched; by default that of the training.
        device: `auto` is CUDA where there is one.

    Raises:
        ConfigError: if files cannot be read, the scenes do not fit the network, or the model is
            damaged: nothing that is not finite is returned.
    """
    target = resolve_device(device)
    if not isinstance(model, Model):
        model = load_model(model, target)
    if isinstance(scenes, Scenes):
        check_scenes(scenes)
    else:
        scenes = load_scenes(scenes)
    weights = next(model.network.parameters())
    scenes = scenes.to(device=target, dtype=weights.dtype.to_complex())
    scene = adapt_scene(model.config.scene, scenes, range_m)
    network = adapt_network(model.network, model.config, scene)
    known = _known_counts(scenes, num_sources)
    if known is not None:
        scene = replace(scene, max_sources=max(scene.max_sources, int(known.max())))
    parts = []
    for first in range(0, scenes.batch_size, BATCH_SIZE):
        part = slice(first, first + BATCH_SIZE)
        counts = None if known is None else known[part]
        parts.append(_localise(network, model, scenes.take(part), counts, scene))
    return Localisation.concatenate(parts)


def check_scenes(scenes: Scenes) -> None:
    """Check scenes made in memory like those of a recording.

    Silent scenes are allowed: none of their sources is resolved.

    Raises:
        ConfigError: if an array is not complex, finite, of the right shape and of a usable scale.
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
        require(not bad, f"{name} is finite", which, "Leave these scenes out.")
        require_scale(name, peaks[peaks > 0].cpu().numpy())


def adapt_scene(
    trained: SceneConfig, scenes: Scenes, range_m: tuple[float, float] | None = None
) -> SceneConfig:
    """Return the training's configuration, changed to the panel and antennas of these scenes."""
    ends = (trained.range_min_m, trained.range_max_m) if range_m is None else tuple(range_m)
    require(len(ends) == 2, "range_m is (nearest, farthest)", f"{ends}", "Give both, in metres.")
    near, far = ends
    return replace(
        trained,
        **dataclasses.asdict(scenes.panel),
        num_antennas=scenes.num_antennas,
        num_snapshots=scenes.num_snapshots,
        range_min_m=near,
        range_max_m=far,
    )


def adapt_network(network: nn.Module, config: TrainConfig, scene: SceneConfig) -> nn.Module:
    """Return a trained network for another panel or region, with the same weights.

    Args:
        config: of its training.

    Raises:
        ConfigError: if that needs another number of range planes than the weights have.
    """
    trained = config.scene
    if scene == trained:
        return network
    planes, needed = (grid_planes(each) for each in (trained, scene))
    if planes != needed:
        fits = _fitting_range_min(scene, planes)
        way = f"--range-m {fits:.3g} {scene.range_max_m:g} would fit" if fits else "Train anew"
        raise ConfigError(
            f"weights serve panels and regions with as many range planes, but the network has "
            f"{planes} ({trained.num_horizontal}x{trained.num_vertical}, {trained.range_min_m:g} "
            f"to {trained.range_max_m:g} m) and {scene.num_horizontal}x{scene.num_vertical} "
            f"elements from {scene.range_min_m:g} to {scene.range_max_m:g} m need {needed}. {way}."
        )
    device = next(network.parameters()).device
    moved = build_network(replace(config, scene=scene)).to(device)
    moved.load_state_dict(network.state_dict())
    return moved.eval()


def grid_planes(scene: SceneConfig) -> int:
    """Return the number of range planes of the dictionary for a panel and region."""
    return grid_shape(scene, POINTS_PER_BEAM, PLANE_PHASE)[0]


def _fitting_range_min(scene: SceneConfig, planes: int) -> float | None:
    """Return the `range_min_m` with so many planes that is nearest to the scene's own, if any."""
    choices = np.geomspace(scene.range_min_m / 10, scene.range_max_m * 0.95, 200)
    choices = choices[np.abs(np.log(choices / scene.range_min_m)).argsort()]
    fits = (r for r in choices if grid_planes(replace(scene, range_min_m=r)) == planes)
    return next(fits, None)


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
    values = places | {"confidence": confidence}
    require_finite(values, model)
    others = {"active": found.active, "resolved": found.resolved, "num_sources": counts}
    return Localisation(**{name: value.cpu().numpy() for name, value in (values | others).items()})


def require_finite(values: dict[str, Tensor], model: Model) -> None:
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
