"""Peaks of plain MUSIC and MVDR (no deflation) against those that other means find.

    python benchmarks/music.py [--num-scenes 10] [--beams 1.0 0.6] [--causes] [--no-write]

Scenes have K = 2 or 3 sources of powers .5 to 2 in noise of .3, the nearest so many beams (peak to
first null) apart, or up to 1.3 times that; and their exact covariance or that of 50 snapshots, a
quarter each. References (`tests.plain_peaks`):

    polynomial    on a line in the far field aᴴ Q a is a polynomial; its stationary points
    root-MUSIC    the roots of that polynomial themselves, where the covariance is exact
    dense grid    ten points a beam, polished by SciPy's simplex
    doatools      its MUSIC and MVDR on a line, where it can be imported (it is not on PyPI)

Merged are scenes in which the reference has fewer than K peaks: nothing can be compared, and the
trainer must call the missing ones not separate. At an edge are scenes in which the spectrum there
is higher than at a peak: the trainer and the dense grid return the edge, the others do not look.
The table in docs/baselines.md is replaced.
"""

import argparse
import importlib.util
import itertools
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple
from unittest.mock import patch

import numpy as np
import torch
from documents import write_tables
from torch import Tensor

from trainer.config import SceneConfig
from trainer.estimation import peak_refinement
from trainer.estimation.levenberg_marquardt import Minimum
from trainer.estimation.pseudospectra import ESTIMATORS
from trainer.intervals import wilson_share
from trainer.scenes import SearchGrid, search_grid

sys.path.append(str(Path(__file__).parents[1]))
from tests import plain_peaks

DOCS = Path(__file__).parent.parent / "docs" / "baselines.md"
SNAPSHOTS = 50
TOLERANCE_DEG = 1e-3
CLOSE = 1.3
"""Most distance of the nearest sources, in terms of the least."""
Reference = Callable[[SceneConfig, str, np.ndarray, int], np.ndarray]
"""(scene, estimator, covariance, K) -> places [<= K, 3]; coordinates that it lacks are NaN."""


class Row(NamedTuple):
    """Scenes of one row of the table, and the plain peaks of each."""

    scene: str
    estimator: str
    counts: list[int]
    exact: list[bool]
    matrices: list[np.ndarray]
    places: np.ndarray  # [S, 3, 3]
    separate: np.ndarray  # [S], all K are
    seconds: float  # of CPU per scene


def plain(label: str, num_scenes: int, beams: float) -> Iterator[Row]:
    """Yield plain peaks of MUSIC and MVDR, of `num_scenes` for each K and kind of covariance."""
    config, generator = plain_peaks.SCENES[label], np.random.default_rng(0)
    kinds = [(k, s) for k in (2, 3) for s in (None, SNAPSHOTS) for _ in range(num_scenes)]
    matrices = [
        plain_peaks.covariance(
            plain_peaks.steering(
                config, plain_peaks.draw_places(config, k, beams, generator, CLOSE * beams)
            ),
            generator.uniform(0.5, 2, k),
            snapshots,
            generator,
        )
        for k, snapshots in kinds
    ]
    counts, exact = [k for k, _ in kinds], [snapshots is None for _, snapshots in kinds]
    given = torch.from_numpy(np.array(matrices)), torch.tensor(counts)
    for name in ("music", "mvdr"):
        search = search_grid(config, torch.float64)
        search.denser  # noqa: B018  (cached)
        start = time.process_time()
        found = ESTIMATORS[name](*given, search, deflation=False)
        seconds = (time.process_time() - start) / len(kinds)
        separate = (found.separate | ~found.active).all(-1).numpy()
        yield Row(label, name, counts, exact, matrices, found.positions.numpy(), separate, seconds)


def references(row: Row) -> dict[str, Reference]:
    """Return the references that apply, by name."""
    if row.scene != "line":
        return {"dense grid": _dense_grid}
    applying: dict[str, Reference] = {"polynomial": _polynomial}
    if row.estimator == "music":
        applying["root-MUSIC"] = _root_music
    if importlib.util.find_spec("doatools"):
        applying["doatools"] = _doatools
    return applying


def _dense_grid(config: SceneConfig, name: str, matrix: np.ndarray, count: int) -> np.ndarray:
    found = plain_peaks.peaks(config, plain_peaks.form(name, matrix, count), count)
    fixed = np.array(plain_peaks.dense_grid(config).shape[::-1]) == 1
    return np.where(fixed, np.nan, found)


def _polynomial(config: SceneConfig, name: str, matrix: np.ndarray, count: int) -> np.ndarray:
    q = plain_peaks.form(name, matrix, count)
    return _azimuths(np.arcsin(plain_peaks.peaks_of_line(config, q, count)))


def _root_music(config: SceneConfig, name: str, matrix: np.ndarray, count: int) -> np.ndarray:
    return _azimuths(np.arcsin(plain_peaks.root_music(matrix, count)))


def _doatools(config: SceneConfig, name: str, matrix: np.ndarray, count: int) -> np.ndarray:
    if not hasattr(np, "float_"):  # doatools was written for NumPy 1
        setattr(np, "float_", np.float64)  # noqa: B010
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cvxpy, which sparse methods need
        from doatools import estimation, model
    line = model.UniformLinearArray(config.num_horizontal, config.spacing_m)
    edge = np.deg2rad(config.azimuth_max_deg)
    grid = estimation.FarField1DSearchGrid(start=-edge, stop=edge, size=601)
    method = {"music": estimation.MUSIC, "mvdr": estimation.MVDRBeamformer}[name]
    resolved, found = method(line, config.wavelength_m, grid).estimate(
        matrix, count, refine_estimates=True, refinement_density=10, refinement_iters=5
    )
    return _azimuths(found.locations.ravel() if resolved else np.empty(0))


def _azimuths(azimuth: np.ndarray) -> np.ndarray:
    return np.stack([azimuth, *[np.full_like(azimuth, np.nan)] * 2], -1)


def compare(row: Row, name: str, reference: Reference, beams: float) -> str:
    """Return a line of the table; differences of 1/range are in parts of the region's."""
    config = plain_peaks.SCENES[row.scene]
    lower, upper = plain_peaks.box(config)
    off, merged, unmerged, at_edge = [], 0, 0, 0
    scenes = zip(row.counts, row.exact, row.matrices, row.places, row.separate, strict=True)
    for count, exact, matrix, places, separate in scenes:
        if name == "root-MUSIC" and not exact:
            continue  # roots off the circle are no peaks
        expected = reference(config, row.estimator, matrix, count)
        if len(expected) < count:
            merged += 1
            unmerged += bool(separate)
            continue
        edge = places[:count][np.isclose(np.abs(places[:count, 0]), upper[0])]
        if name != "dense grid" and len(edge) and _is_higher(row, matrix, count, edge, expected):
            at_edge += 1
            continue
        difference = np.abs(plain_peaks.differences(places[:count], expected))
        off.append([np.rad2deg(np.nanmax(difference[:, :2])), difference[:, 2].max()])
    angle, inverse = np.array(off).T
    beyond = wilson_share(float((angle > TOLERANCE_DEG).mean()), len(off))
    inverse = inverse / (upper - lower)[2]
    cells = [row.scene, f"{beams:g}", row.estimator, name, f"{len(off)}"]
    cells += [f"{merged}" + f" ({unmerged} not here)" * bool(unmerged)]
    cells += [f"{at_edge}"]
    cells += [f"{angle.max():.0e}", f"{np.median(angle):.0e}"]
    cells += [f"{beyond.mean:.2f} [{beyond.low:.2f}, {beyond.high:.2f}]"]
    cells += ["-" if np.isnan(inverse).all() else f"{inverse.max():.0e}"]
    return f"| {' | '.join(cells)} |"


def _is_higher(
    row: Row, matrix: np.ndarray, count: int, edge: np.ndarray, expected: np.ndarray
) -> bool:
    """Return whether the spectrum at places on the edge is higher than at the lowest expected."""
    config, q = plain_peaks.SCENES[row.scene], plain_peaks.form(row.estimator, matrix, count)
    expected = np.where(np.isnan(expected), edge[:1], expected)
    at_edge, at_peaks = (
        plain_peaks.quadratic(q, plain_peaks.steering(config, x)) for x in (edge, expected)
    )
    return bool(at_edge.max() < at_peaks.max())


def causes(num_scenes: int, beams: float) -> Iterator[str]:
    """Yield how often peaks of three sources on a line, exact R, are missed by other searches.

    Gauss-Newton takes a aᴴ / N for B Bᴴ, whose curvature is too large beside another source.
    """
    config = plain_peaks.SCENES["line"]
    search, generator = search_grid(config, torch.float64), np.random.default_rng(1)
    sparse = property(lambda grid: grid)
    dense = SearchGrid.__dict__["denser"]
    ways = {
        "Gauss-Newton, 15 steps, sparse grid": (partial(_gauss_newton, 15), sparse),
        "Gauss-Newton, 15 steps": (partial(_gauss_newton, 15), dense),
        "Gauss-Newton, 100 steps": (partial(_gauss_newton, 100), dense),
        "Newton, sparse grid": (peak_refinement.climb, sparse),
        "Newton": (peak_refinement.climb, dense),
    }
    for name in ("music", "mvdr"):
        matrices, expected = [], []
        while len(matrices) < num_scenes:
            places = plain_peaks.draw_places(config, 3, beams, generator, CLOSE * beams)
            powers = generator.uniform(0.5, 2, 3)
            columns = plain_peaks.steering(config, places)
            matrix = plain_peaks.covariance(columns, powers, None, generator)
            found = plain_peaks.peaks_of_line(config, plain_peaks.form(name, matrix, 3), 3)
            if len(found) == 3:
                matrices.append(matrix)
                expected.append(np.sort(np.arcsin(found)))
        given = torch.from_numpy(np.array(matrices)), torch.full((num_scenes,), 3)
        for way, (climb, grid) in ways.items():
            with (
                patch.object(peak_refinement, "climb", climb),
                patch.object(SearchGrid, "denser", grid),
            ):
                azimuth = ESTIMATORS[name](*given, search, deflation=False).azimuth.numpy()
            off = np.rad2deg(np.abs(np.sort(azimuth, -1) - np.array(expected)).max(-1))
            share = wilson_share(float((off > TOLERANCE_DEG).mean()), num_scenes)
            yield (
                f"{beams:g} beams, {name}, {way}: {share.mean:.3f} [{share.low:.3f}, "
                f"{share.high:.3f}] of {num_scenes} beyond {TOLERANCE_DEG:g}°, "
                f"largest {off.max():.1e}°"
            )


def _gauss_newton(steps: int, beams: Tensor, start: Tensor, search: SearchGrid) -> Minimum:
    one = torch.ones(len(start), 1, dtype=torch.bool)
    beams, start = beams.to(torch.complex128), start.double().unsqueeze(1)
    return peak_refinement.fit_subspace(beams, start, one, search, steps=steps)


def main() -> None:
    """Compare everything and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-scenes", type=int, default=10, help="for each K and covariance")
    parser.add_argument("--beams", type=float, nargs="+", default=[1.0, 0.6], help="apart")
    parser.add_argument("--no-write", action="store_true", help=f"leave {DOCS.name} as it is")
    parser.add_argument("--causes", action="store_true", help="other searches instead, on a line")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.causes:
        for beams in args.beams:
            for said in causes(20 * args.num_scenes, beams):
                print(said, flush=True)
        return
    columns = [
        "scene",
        "beams",
        "estimator",
        "reference",
        "n",
        "merged",
        "at an edge",
        "max [°]",
        "median [°]",
    ]
    columns += [f"beyond {TOLERANCE_DEG:g}° [95 %]", "max of 1/range"]
    rows = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    print("\n".join(rows), flush=True)
    for beams, label in itertools.product(args.beams, plain_peaks.SCENES):
        for row in plain(label, args.num_scenes, beams):
            print(f"{label}, {row.estimator}: {1000 * row.seconds:.1f} ms of CPU per scene")
            for name, reference in references(row).items():
                rows.append(compare(row, name, reference, beams))
                print(rows[-1], flush=True)
    if not importlib.util.find_spec("doatools"):
        print("doatools cannot be imported here: left out.")
    if not args.no_write:
        write_tables(DOCS, {"plain peaks": "\n".join(rows)})


if __name__ == "__main__":
    main()
