"""From snapshots to places, in one call:

    from trainer.training import localise
    found = localise("runs/local/best", "scenes.npz")

The network predicts a covariance, its eigenvalues say K where nobody else does, MUSIC on it finds
as many sources, and Fisher scoring on the snapshots refines them. Weights serve other panels,
antennas and numbers of snapshots than they were trained on; only the number of range planes of the
dictionary must be the same, because range planes are channels of the convolutions.
"""

import dataclasses
import io
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trainer.atomic import write_atomically
from trainer.config import ConfigError, SceneConfig, TrainConfig, require
from trainer.covariance import PLANE_PHASE, POINTS_PER_BEAM
from trainer.estimation import estimate_num_sources, music_with_scoring
from trainer.evaluation import confidence_features
from trainer.networks import build_network
from trainer.scenes import Scenes, grid_shape, load_scenes, require_scale

from .loop import resolve_device
from .model import Model, load_model

PART = 128
"""Scenes done at once: large enough for the hardware, small enough for memory."""


@dataclass(frozen=True)
class Localisation:
    """Places of the sources of S scenes, up to K each; no NaN anywhere.

    Attributes:
        azimuth, elevation: [S, K] [rad].
        range_m: [S, K] [m].
        confidence: [S, K], probability of lying within 5° and 5° of a source (`confidence`); 0
            in inactive slots.
        active: [S, K], slots that hold an estimate: the first `num_sources` of a scene. The
            others hold the centre of the region.
        resolved: [S, K], estimates that stand out from noise (`estimates`); others are best
            guesses.
        num_sources: [S], K as given, or as the eigenvalues say.
    """

    azimuth: NDArray[np.float32]
    elevation: NDArray[np.float32]
    range_m: NDArray[np.float32]
    confidence: NDArray[np.float32]
    active: NDArray[np.bool_]
    resolved: NDArray[np.bool_]
    num_sources: NDArray[np.int64]

    def save(self, path: str | Path) -> None:
        """Writes the arrays to an `.npz` file, whole or not at all.

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
        """The arrays by name."""
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}

    @classmethod
    def concatenate(cls, parts: list[Self]) -> Self:
        """The scenes of several parts, in this order."""
        names = parts[0].arrays()
        return cls(**{name: np.concatenate([p.arrays()[name] for p in parts]) for name in names})


def localise(
    model: Model | str | Path,
    scenes: Scenes | str | Path,
    *,
    num_sources: int | None = None,
    know_sources: bool = True,
    range_m: tuple[float, float] | None = None,
    device: str = "auto",
) -> Localisation:
    """Localises the sources of recorded or simulated scenes.

    Args:
        model: a model folder, the run or training that left one, or one that was loaded.
        scenes: in memory, or a recording (`recorded`).
        num_sources: K of every scene; by default what the scenes know, or else the widest relative
            gap between the eigenvalues of the predicted covariance.
        know_sources: False asks the eigenvalues also where the scenes know K.
        range_m: nearest and farthest range that is searched; by default that of the training.
        device: `auto` is CUDA where there is one.

    Raises:
        ConfigError: if files cannot be read, the scenes do not fit the network, or the model is
            damaged: nothing that is not finite is returned.
    """
    where = resolve_device(device)
    if not isinstance(model, Model):
        model = load_model(model, where)
    if isinstance(scenes, Scenes):
        require_sound(scenes)
    else:
        scenes = load_scenes(scenes)
    weights = next(model.network.parameters())
    scenes = scenes.to(device=where, dtype=weights.dtype.to_complex())
    scene = scene_of(model.config.scene, scenes, range_m)
    network = adapt_network(model.network, model.config, scene)
    told = _told(scenes, num_sources, know_sources)
    if told is not None:
        scene = replace(scene, max_sources=max(scene.max_sources, int(told.max())))
    parts = []
    for first in range(0, scenes.batch_size, PART):
        part = slice(first, first + PART)
        count = None if told is None else told[part]
        parts.append(_localise(network, model, scenes.take(part), count, scene))
    return Localisation.concatenate(parts)


def require_sound(scenes: Scenes) -> None:
    """Refuses scenes that nobody checked, made in memory, if no recording could hold them.

    Silent ones may stay beside others: no source of theirs is resolved.

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


def scene_of(
    trained: SceneConfig, scenes: Scenes, range_m: tuple[float, float] | None = None
) -> SceneConfig:
    """The configuration of a network's training, for the panel and antennas of these scenes."""
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
    """A trained network for another panel or region, the same weights.

    Args:
        config: of its training.

    Raises:
        ConfigError: if that needs another number of range planes than the weights have.
    """

    def nearer(range_min_m: float) -> SceneConfig:
        return replace(scene, range_min_m=range_min_m)

    trained = config.scene
    if scene == trained:
        return network
    planes, needed = (grid_planes(each) for each in (trained, scene))
    if planes != needed:
        fits = next((r for r in _nearest(scene) if grid_planes(nearer(r)) == planes), None)
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
    """Range planes of the dictionary for a panel and region."""
    return grid_shape(scene, POINTS_PER_BEAM, PLANE_PHASE)[0]


def _nearest(scene: SceneConfig) -> NDArray[np.float64]:
    """Nearest ranges to try, nearest to the one asked for first."""
    choices = np.geomspace(scene.range_min_m / 10, scene.range_max_m * 0.95, 200)
    return choices[np.abs(np.log(choices / scene.range_min_m)).argsort()]


def _told(scenes: Scenes, num_sources: int | None, know_sources: bool) -> Tensor | None:
    """K of every scene, [S], or None where the network is to say it."""
    device = scenes.snapshots.device
    if num_sources is not None:
        whole = int(num_sources) == num_sources >= 1
        require(whole, "num_sources >= 1, whole", f"{num_sources}", "Leave it out to ask.")
        return torch.full((scenes.batch_size,), int(num_sources), device=device)
    if scenes.truth is None or not know_sources:
        return None
    count = scenes.truth.num_sources
    least = "Drop the scenes without sources."
    require(bool((count >= 1).all()), "num_sources >= 1", f"{int(count.min())}", least)
    return count


@torch.no_grad()
def _localise(
    network: nn.Module, model: Model, scenes: Scenes, told: Tensor | None, scene: SceneConfig
) -> Localisation:
    covariance = network(scenes)
    require_finite({"covariance": covariance.held.abs()}, model)
    count = told
    if count is None:
        count = estimate_num_sources(covariance, scenes.num_snapshots, scene.max_sources)
    found = music_with_scoring(scenes, covariance, count, scene)
    numbers = confidence_features(covariance, found, count, scene)
    confidence = model.calibration.confidence(numbers) * found.scored
    places = {name: getattr(found, name) for name in ("azimuth", "elevation", "range_m")}
    values = places | {"confidence": confidence}
    require_finite(values, model)
    others = {"active": found.active, "resolved": found.resolved, "num_sources": count}
    return Localisation(**{name: value.cpu().numpy() for name, value in (values | others).items()})


def require_finite(values: dict[str, Tensor], model: Model) -> None:
    """Refuses to hand on numbers that are none.

    Raises:
        ConfigError: if one of them is not finite.
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
