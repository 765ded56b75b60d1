"""The usual misreadings of a recording, by name: which of them would make its scenes fit?

Every reading is tried on a sample of scenes by stochastic maximum likelihood and the test of
`goodness_of_fit`. All readings explain the same snapshots, so their likelihoods compare.

Some cannot be told from the snapshots: rows and columns exchanged in a square panel, or rows or
columns reversed in channel and codes alike, are the same scene with azimuth and elevation
exchanged or of the other sign. Only known places tell these (`known_places`).

A sample of every recording, a lone scene too, is tried in all of them though its scenes fit
(`better_reading`): wrong codes leave little but noise, and some place explains noise.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from scipy.optimize import brentq
from torch import Tensor

from trainer.config import ConfigError, SceneConfig
from trainer.estimation import sml
from trainer.evaluation import source_gain
from trainer.scenes import Panel, Scenes, SearchGrid, search_grid

from .best_places import LEVEL, climb, reverse_phase, too_many
from .goodness_of_fit import goodness_of_fit

SAMPLE = 16
"""Scenes on which every reading is tried."""
LEAST_GAIN = 5.0
"""Log likelihood per scene by which a reading must be better than the recording as given."""
ALONE = 0.002
"""Share of the law's own recordings for which some other reading may be called better."""
SIGN = "the phase sign reversed"
NOISE = "noise_variance left out"
SCALES = (
    ("the elements' distances given in wavelengths", "multiply them by wavelength_m", None),
    ("the elements' distances given in millimetres", "divide them by 1000", 1e-3),
    ("the elements' distances given in centimetres", "divide them by 100", 1e-2),
    ("the elements' distances twice as large as they are", "halve them", 0.5),
    ("the elements' distances half as large as they are", "double them", 2.0),
)
"""Name, remedy and factor of the distances; None is the wavelength."""


@dataclass(frozen=True)
class Convention:
    """A reading of a recording, and how well its scenes fit it.

    Attributes:
        name: e.g. "the phase sign reversed"; "" is the recording as given.
        fitting, of: number of scenes that fit, of those tried.
        gain: log likelihood gained per scene over the recording as given, the median.
        remedy: what to change, e.g. "conjugate snapshots, channel and codes".
    """

    name: str
    fitting: int
    of: int
    gain: float
    remedy: str


@torch.no_grad()
def conventions(scenes: Scenes, num_sources: Tensor, scene: SceneConfig) -> list[Convention]:
    """Return the readings of a recording, best first, by the likelihood of a sample of scenes.

    The recording as given, of name "", is among them. Readings that are impossible, e.g. a spacing
    with grating lobes, are left out.

    Args:
        num_sources: K, [B].
        scene: the region; its panel is that of each reading.
    """
    scenes, num_sources = sample(scenes, num_sources)
    given, found = None, []
    for name, remedy, reading in readings(scenes):
        try:
            value, fits, noise = fit_reading(reading, num_sources, scene)
        except ConfigError:
            continue
        given = value if given is None else given
        gain = float((given - value).median())
        if name == NOISE:
            factor = float((scenes.noise_variance / noise).median())
            remedy = f"{remedy}, or divide it by {factor:.3g}: the residuals say so"
        found.append(Convention(name, int(fits.sum()), len(fits), gain, remedy))
    return sorted(found, key=lambda each: -each.gain)


def likely_convention(found: list[Convention]) -> Convention | None:
    """Return the reading that explains the recording, unless it is that as given, or none does.

    Leaving out σ² is one where it makes scenes fit; it changes no likelihood of a place.
    """
    (given,) = (each for each in found if not each.name)
    best = max(found, key=lambda each: each.gain)
    more = best.fitting > given.fitting or best.gain > least_gain(len(found))
    if best.gain > LEAST_GAIN and best.fitting > best.of // 2 and more:
        return best
    misfit = too_many(given.of - given.fitting, given.of)
    for each in found:
        if misfit and each.name == NOISE and not too_many(each.of - each.fitting, each.of):
            return each
    return None


def least_gain(number: int, scenes: int = 1) -> float:
    """Return the log likelihood by which one of so many readings must explain scenes better.

    Of noise alone the gain of a scene is logistic (`best_places`), that of several a sum of such,
    with the characteristic function (πt / sinh πt)^n; Bonferroni's sum over readings is `ALONE`.
    """
    t = np.linspace(0, 20, 20_001)[1:]
    spectrum = (np.pi * t / np.sinh(np.pi * t)) ** scenes / t

    def excess(gain: float) -> float:
        # the integrand is smooth and, at 0, `gain`: the trapezoidal rule is exact to rounding
        integral = (spectrum * np.sin(gain * t)).sum() * t[0] + gain * t[0] / 2
        return number * (0.5 - integral / np.pi) - ALONE

    deviation = np.pi * (scenes / 3) ** 0.5
    return float(brentq(excess, 0, 6 * deviation + 20))


@torch.no_grad()
def better_reading(scenes: Scenes, num_sources: Tensor, scene: SceneConfig) -> str:
    """Return the name of the reading that explains scenes better than as given; "" if none does.

    One reading for all: the log likelihoods that they gain are added. The phase sign has a test
    of its own (`best_places`); σ² left out changes no likelihood; what no snapshots can tell, such
    as mirror images, is not among the readings. Only readings in which one source of the grid
    explains more than as given are searched by maximum likelihood.

    Args:
        num_sources: K, [B], at least 1.
        scene: the region; its panel is that of each reading.
    """
    number, as_given, closer = 0, torch.inf, {}
    for name, _, reading in readings(scenes):
        if name in (NOISE, SIGN):
            continue
        try:
            coarse = float(source_gain(reading, _search(reading, scene)).sum())
        except ConfigError:  # a region in which directions would look alike
            continue
        number += bool(name)
        as_given = as_given if name else coarse
        if coarse > as_given:
            closer[name] = reading
    if not closer:
        return ""
    tried = {
        name: float(_likeliest(reading, num_sources, scene)[-1].sum())
        for name, reading in {"": scenes, **closer}.items()
    }
    best = min(tried, key=lambda name: tried[name])
    gain = tried[""] - tried[best]
    return best if best and gain > least_gain(number, scenes.batch_size) else ""


def readings(scenes: Scenes) -> Iterator[tuple[str, str, Scenes]]:
    """Yield (name, remedy, scenes) of every reading; first the scenes as they are."""
    panel = scenes.panel
    yield "", "", scenes
    if bool(torch.isfinite(scenes.noise_variance).any()):
        unknown = torch.full_like(scenes.noise_variance, torch.nan)
        yield NOISE, "leave noise_variance out", replace(scenes, noise_variance=unknown)
    yield SIGN, "conjugate snapshots, channel and codes", reverse_phase(scenes)
    for name in ("snapshots", "channel", "codes"):
        conjugate = getattr(scenes, name).conj().resolve_conj()
        yield f"{name} conjugated", f"conjugate {name}", replace(scenes, **{name: conjugate})
    measured = reverse_phase(replace(scenes, codes=scenes.codes.conj()))
    yield "snapshots and channel conjugated", "conjugate snapshots and channel", measured
    yield from _of_antennas(scenes)
    yield from _of_codes(scenes)
    if panel.positions_m is None:
        yield from _of_lattice(scenes)
    for name, remedy, scale in SCALES:
        yield name, remedy, replace(scenes, panel=scaled(panel, scale))


def _of_lattice(scenes: Scenes) -> Iterator[tuple[str, str, Scenes]]:
    panel = scenes.panel
    numbers = torch.arange(panel.num_elements, device=scenes.codes.device)
    lattice = numbers.view(panel.num_vertical, panel.num_horizontal)
    by_columns = numbers.view(panel.num_horizontal, panel.num_vertical).mT.flatten()
    there_and_back, up_and_down = lattice.clone(), lattice.clone()
    there_and_back[1::2] = lattice[1::2].flip(1)
    up_and_down[:, 1::2] = lattice[:, 1::2].flip(0)
    turning = {
        "row by row, there and back": there_and_back.flatten(),
        "column by column, up and down": up_and_down.mT.flatten().argsort(),
    }
    orders = {
        "column by column": by_columns,
        "with rows reversed": lattice.flip(0).flatten(),
        "with columns reversed": lattice.flip(1).flatten(),
        "starting with the last one": numbers.roll(-1),
        "starting with the second one": numbers.roll(1),
    }
    remedy = (
        "order the elements of {} row by row, the lowest row and leftmost first; if they are, "
        "those of {}: only known places tell which of both is wrong"
    )
    for name, order in (orders | turning).items():
        for array, other in (("codes", "channel"), ("channel", "codes")):
            yield (
                f"the elements of {array} ordered {name}",
                remedy.format(array, other),
                replace(scenes, **{array: getattr(scenes, array)[..., order]}),
            )
    square = panel.num_horizontal == panel.num_vertical
    if not square:
        turning["column by column"] = by_columns
    for name, order in turning.items():
        both = {array: getattr(scenes, array)[..., order] for array in ("codes", "channel")}
        yield (
            f"the elements of codes and channel ordered {name}",
            "order the elements of codes and channel row by row",
            replace(scenes, **both),
        )
    if not square:
        swapped = replace(
            panel, num_horizontal=panel.num_vertical, num_vertical=panel.num_horizontal
        )
        yield (
            "num_horizontal and num_vertical exchanged",
            "exchange num_horizontal and num_vertical",
            replace(scenes, panel=swapped),
        )


def _of_antennas(scenes: Scenes) -> Iterator[tuple[str, str, Scenes]]:
    snapshots = scenes.snapshots
    orders = {"in reverse order": snapshots.flip(2)}
    if scenes.num_antennas > 2:
        orders["starting with the last one"] = snapshots.roll(-1, 2)
        orders["starting with the second one"] = snapshots.roll(1, 2)
    if scenes.num_antennas > 1:
        for name, order in orders.items():
            remedy = "order the antennas of snapshots as those of channel"
            yield f"antennas of snapshots {name}", remedy, replace(scenes, snapshots=order)


def _of_codes(scenes: Scenes) -> Iterator[tuple[str, str, Scenes]]:
    codes = scenes.codes
    if scenes.num_snapshots > 1:
        orders = {"in reverse order of snapshots": codes.flip(1)}
        for number, word in enumerate(
            ("one snapshot", "two snapshots", "three snapshots", "four snapshots"), 1
        ):
            if number < scenes.num_snapshots:
                orders[f"{word} late"] = codes.roll(-number, 1)
                orders[f"{word} early"] = codes.roll(number, 1)
        for name, order in orders.items():
            remedy = "give every snapshot its own code"
            yield f"codes {name}", remedy, replace(scenes, codes=order.contiguous())
    phases = codes.angle()
    largest = math.radians(2 * math.pi)  # of a full turn, taken for degrees
    if 0 < float(phases.abs().max()) <= largest:
        yield (
            "codes made of phases in radians, not degrees",
            "make codes by exp(1j * phases): these are radians, not degrees",
            replace(scenes, codes=torch.polar(codes.abs(), phases.rad2deg())),
        )
    if bool((codes.imag != 0).any()):
        for name, factor, remedy in (("doubled", 0.5, "halve"), ("halved", 2.0, "double")):
            yield (
                f"codes made of phases {name}",
                f"{remedy} the phases",
                replace(scenes, codes=torch.polar(codes.abs(), factor * phases)),
            )
    else:
        phases = codes.real
        states = {
            "phases in turns": (2 * torch.pi * phases, "replace codes by exp(2j * pi * codes)"),
            "phases in radians": (phases, "replace codes by exp(1j * codes)"),
            "phases in degrees": (phases.deg2rad(), "replace codes by exp(1j * radians(codes))"),
            "bits": (torch.pi * phases, "replace codes by exp(1j * pi * codes)"),
        }
        for name, (phase, remedy) in states.items():
            turned = torch.polar(torch.ones_like(phase), phase)
            yield f"codes given as {name}", remedy, replace(scenes, codes=turned)


def scaled(panel: Panel, scale: float | None) -> Panel:
    """Return a panel of scaled positions; None scales by the wavelength."""
    scale = panel.wavelength_m if scale is None else scale
    if panel.positions_m is None:
        return replace(panel, spacing_m=panel.spacing_m * scale)
    return Panel.of_positions(
        [(h * scale, v * scale) for h, v in panel.positions_m], panel.wavelength_m
    )


def sample(scenes: Scenes, num_sources: Tensor, size: int = SAMPLE) -> tuple[Scenes, Tensor]:
    """Return up to `size` scenes, evenly spaced, and their K."""
    step = -(-scenes.batch_size // size)
    chosen = torch.arange(0, scenes.batch_size, step, device=num_sources.device)
    return scenes.take(chosen), num_sources[chosen]


def fit_reading(
    scenes: Scenes, num_sources: Tensor, scene: SceneConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Return -log likelihood at the places of highest likelihood, whether they fit, σ²: [B]."""
    best, active, value = _likeliest(scenes, num_sources, scene)
    fit = goodness_of_fit(scenes, best, active, _search(scenes, scene))
    return value, fit.p_value >= LEVEL, fit.noise


def _likeliest(
    scenes: Scenes, num_sources: Tensor, scene: SceneConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the places of highest likelihood [B, K, 3], which are active, -log likelihood."""
    search = _search(scenes, scene)
    found = sml(scenes, num_sources, search)
    best, value = climb(scenes, found.positions, found.active, search)
    return best, found.active, value


def _search(scenes: Scenes, scene: SceneConfig) -> SearchGrid:
    """Return the grid of a region with the panel of scenes.

    Raises:
        ConfigError: if the panel has grating lobes there.
    """
    scene = replace(scene, **asdict(scenes.panel))
    return search_grid(scene, torch.float32, scenes.snapshots.device)
