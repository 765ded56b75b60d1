"""Classical estimators next to the Cramér-Rao bound: success and error against SNR.

    python benchmarks/baselines.py --scene full|local [--parts FOLDER] [--no-write]

All estimators see the same scenes and are told K. Tables go into docs/baselines.md, the figure
into docs/figures. Everything is per scene, 95 % intervals over scenes: Wilson for shares,
percentile bootstrap for the rest.

    success       azimuth and elevation within 5 deg
    RMSE          root mean square of sqrt(d_azimuth² + d_elevation²), next to the root of the
                  mean stochastic CRB of the same scenes
    robust ratio  median of |error| / root CRB over azimuths and elevations of all sources, over
                  .6745: 1 for an efficient estimator with Gaussian errors, blind to the outliers
                  that make a threshold

With --parts, every point is kept as soon as it is measured, and a run that was ended goes on from
there; change the code, and the folder is out of date.
"""

import argparse
import hashlib
import io
import time
from pathlib import Path

import numpy as np
import torch
from baselines_tables import Point, Table, plot, tables
from documents import write_tables

from spaces.presets import FULL_SCENE, LOCAL_SCENE
from trainer.atomic import write_atomically
from trainer.config import SceneConfig, TrainConfig
from trainer.covariance import eigendecompose, lmmse, sample_covariance
from trainer.estimation import SOURCE_NUMBERS, build_localiser, estimate_num_sources
from trainer.evaluation import (
    Errors,
    classical_estimator,
    gospa,
    match,
    mean_over_sources,
    stochastic_crb,
    success,
    to_numpy,
)
from trainer.scenes import EvalScenes

SCENES = {"full": FULL_SCENE, "local": LOCAL_SCENE}
ESTIMATORS = {
    "full": ("pinv_music", "lmmse_music", "lmmse_mvdr", "lmmse_beamformer", "sml"),
    "local": (
        "pinv_music",
        "lmmse_music",
        "lmmse_mvdr",
        "lmmse_beamformer",
        "sparse_music",
        "sml",
    ),
}
"""Sparse fitting of a 12x12 panel takes seconds per scene on a CPU: name it to have it."""
NUM_SCENES = {1: 1000, 2: 200, 3: 100}
"""A median over 1,000 single sources is good to 5 %; the others take long."""
CHUNK = 50
SEED = 3_000_017
DOCS = Path(__file__).parent.parent / "docs"


def measure(
    config: SceneConfig, names: list[str], snr_db: float, count: int, scenes: int, device: str
) -> Point:
    """Score every estimator on the same scenes, with the bound and K by eigenvalues."""
    estimates = {name: classical_estimator(name, config, device) for name in names}
    unaware = build_localiser("lmmse_music", config, device)
    errors: dict[str, list[Errors]] = {name: [] for name in names}
    unaware_errors, roots = [], []
    told: dict[str, list[np.ndarray]] = {rule: [] for rule in SOURCE_NUMBERS}
    for first in range(0, scenes, CHUNK):
        ids = range(first, min(first + CHUNK, scenes))
        batch = EvalScenes(config, SEED).batch(
            ids, snr_db=snr_db, num_sources=count, device=device
        )
        bound = stochastic_crb(batch)
        both = torch.stack([bound.azimuth, bound.elevation], dim=-1)[:, :count]
        roots.append(both.sqrt().rad2deg())
        for name, estimate in estimates.items():
            errors[name].append(match(estimate(batch), batch.sources))
        covariance = sample_covariance(lmmse(batch))
        asked = estimate_num_sources(covariance, batch.num_snapshots, config.max_sources)
        unaware_errors.append(match(unaware(batch, asked), batch.sources))
        values = eigendecompose(covariance).all_values
        for rule, count_sources in SOURCE_NUMBERS.items():
            found = count_sources(values, batch.num_snapshots, config.max_sources)
            told[rule].append(found.cpu().numpy() == count)
    root = torch.cat(roots)
    kept: dict[str, dict[str, np.ndarray]] = {"success": {}, "square": {}, "ratio": {}}
    for name, parts in errors.items():
        joined = Errors.concatenate(parts)
        square = mean_over_sources(joined.angle_deg.double().square(), joined.active)
        off = torch.stack([joined.azimuth_deg, joined.elevation_deg], dim=-1)[:, :count]
        kept["success"][name] = to_numpy(success(joined))
        kept["square"][name] = to_numpy(square)
        kept["ratio"][name] = to_numpy(off.abs() / root)
    return Point(
        **kept,
        bound=to_numpy(root.square().sum(-1).mean(-1)),
        number={rule: np.concatenate(parts) for rule, parts in told.items()},
        gospa=to_numpy(gospa(Errors.concatenate(unaware_errors)) / count),
    )


def kept_or_measured(
    parts: Path | None,
    config: SceneConfig,
    names: list[str],
    snr_db: float,
    count: int,
    scenes: int,
    device: str,
) -> Point:
    """Return a point that an earlier run kept in `parts`, or measure and keep it."""
    if parts is None:
        return measure(config, names, snr_db, count, scenes, device)
    text = f"{config} {names} {SEED} {scenes}"
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    path = parts / f"{digest}_K{count}_{snr_db:g}dB.npz"
    if not path.exists():
        parts.mkdir(parents=True, exist_ok=True)
        point = measure(config, names, snr_db, count, scenes, device)
        content = io.BytesIO()
        np.savez(content, **point.as_arrays())
        write_atomically(path, content.getvalue())
    with np.load(path) as arrays:
        return Point.of_arrays(dict(arrays))


def main() -> None:
    """Print the tables in Markdown, and write them and the figure into the documents."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", choices=SCENES, default="local")
    parser.add_argument(
        "--num-scenes", type=int, help=f"per SNR and K; default by K: {NUM_SCENES}"
    )
    parser.add_argument("--sources", type=int, nargs="+", help="values of K; default 1 to 3")
    parser.add_argument("--snr-db", type=float, nargs="+", default=[-15, -10, -5, 0, 5, 10, 20])
    parser.add_argument("--estimators", nargs="+", help="default: all that are fast enough")
    parser.add_argument("--parts", type=Path, help="folder that keeps every point measured")
    parser.add_argument("--no-write", action="store_true", help="leave docs/ as it is")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help="default: cuda where there is one")
    options = parser.parse_args()
    torch.set_num_threads(1)
    config = TrainConfig.from_params(SCENES[options.scene]).scene
    counts = options.sources or list(range(1, min(config.max_sources, 3) + 1))
    names = options.estimators or list(ESTIMATORS[options.scene])
    table: Table = {}
    for count in counts:
        scenes = options.num_scenes or NUM_SCENES.get(count, min(NUM_SCENES.values()))
        for snr in options.snr_db:
            start = time.perf_counter()
            table[snr, count] = kept_or_measured(
                options.parts, config, names, snr, count, scenes, options.device
            )
            seconds = time.perf_counter() - start
            print(f"K = {count}, {snr:g} dB: {scenes} scenes, {seconds:.0f} s", flush=True)
    written = tables(table)
    for title, text in written.items():
        print(f"\n{title}\n\n{text}")
    if not options.no_write:
        figure = DOCS / "figures" / f"baselines_{options.scene}.png"
        figure.parent.mkdir(exist_ok=True)
        plot(table, figure)
        whole = "\n\n".join(f"**{title}**\n\n{text}" for title, text in written.items())
        write_tables(DOCS / "baselines.md", {options.scene: whole})
        print(f"\nWritten: {DOCS / 'baselines.md'}, {figure}")


if __name__ == "__main__":
    main()
