"""The readout `posterior` on the held-out `local` scenes: error above the limit, and time.

    python benchmarks/posterior.py [--snr-db -5 0] [--num-sources 1 2] [--scenes 256] [--sml]
        [--write]
    python benchmarks/posterior.py --figure docs/figures/readouts.png [--model RUN] [--scenes 256]
        [--write]

K is told. Differences to the kept limit *shape* and to stochastic ML are paired by scene, with
95 % intervals; times are CPU time on one thread, median over batches. With --write the table goes
into docs/limit.md at <!-- readout -->. --figure draws, instead, error against time over -5 and 0
dB and K = 1, 2, of the posterior and of other readouts, those of a network with --model, all
measured in this run; its table goes to <!-- readouts -->.
"""

import argparse
import shlex
import sys
import time
from pathlib import Path
from statistics import median

from trained import LOCAL_SCENE  # isort: skip  (sets threads)

import numpy as np
import torch
from documents import write_tables

from trainer.config import POSTERIOR_NAME, REFINEMENTS, TrainConfig
from trainer.estimation import Estimates, covariance_localiser, refined_music
from trainer.evaluation import (
    Estimator,
    capped_error,
    classical_estimator,
    match,
    posterior_readout,
    to_numpy,
)
from trainer.intervals import Interval, bootstrap_mean
from trainer.limits import PACKAGED, KeptLimits
from trainer.scenes import EvalScenes, Scenes
from trainer.training import load_model, resolve_device

CONFIG = TrainConfig.from_params(LOCAL_SCENE)
JUDGED = CONFIG.evaluation
KEPT = KeptLimits(CONFIG.scene, JUDGED.test_seed)
DOCUMENT = Path("docs/limit.md")
BATCH = 32
OBJECTIVE = [(snr, k) for k in (1, 2) for snr in JUDGED.objective_snr_db]
CLASSICAL = ("lmmse_music", "lmmse_beamformer", "lmmse_music+scoring", "sml")


def measure(snr_db: float, count: int, size: int, *, sml: bool) -> dict[str, np.ndarray]:
    """Return errors, what was expected, and more, of every scene of a point."""
    found: dict[str, list[np.ndarray]] = {}
    reference = classical_estimator("sml", CONFIG.scene)
    for first in range(0, size, BATCH):
        ids = range(first, min(first + BATCH, size))
        scenes = EvalScenes(CONFIG.scene, JUDGED.test_seed).batch(
            ids, snr_db=snr_db, num_sources=count
        )
        started = time.process_time()
        read = posterior_readout(scenes, scenes.sources.num_sources, CONFIG.scene)
        spent = time.process_time() - started
        errors = match(read.estimates(CONFIG.scene), scenes.sources)
        values = {
            "error": to_numpy(capped_error(errors)),
            "expected": to_numpy(read.expected_error),
            "worth": to_numpy(read.worth),
            "again": to_numpy(read.resampled),
            "poor": to_numpy(read.poor),
            "ms": np.full(len(ids), 1e3 * spent / len(ids)),
        }
        if sml:
            values["sml"] = to_numpy(capped_error(match(reference(scenes), scenes.sources)))
        for name, value in values.items():
            found.setdefault(name, []).append(value)
    return {name: np.concatenate(parts) for name, parts in found.items()}


def readouts(model: Path | None) -> dict[str, Estimator]:
    """Return the readouts to compare by name, K told."""
    found: dict[str, Estimator] = {
        name: classical_estimator(name, CONFIG.scene) for name in CLASSICAL
    }
    if model is not None:
        loaded = load_model(model, resolve_device("cpu"))

        def network(scenes: Scenes, how: str | None) -> Estimates:
            told = scenes.sources.num_sources
            if how is None:
                return covariance_localiser(loaded.network, CONFIG.scene)(scenes, told)
            return refined_music(scenes, loaded.network(scenes), told, CONFIG.scene, how)

        found["network"] = lambda scenes: network(scenes, None)
        for how in REFINEMENTS:
            found[f"network+{how}"] = lambda scenes, how=how: network(scenes, how)
    found[POSTERIOR_NAME] = lambda scenes: posterior_readout(
        scenes, scenes.sources.num_sources, CONFIG.scene
    ).estimates(CONFIG.scene)
    return found


@torch.no_grad()
def compare(size: int, model: Path | None) -> dict[str, tuple[float, Interval]]:
    """Return milliseconds a scene and capped error of every readout, over the objective's points.

    The time is the mean over points of the median over batches.
    """
    parts = [range(first, min(first + BATCH, size)) for first in range(0, size, BATCH)]
    points = {}
    for name, locate in readouts(model).items():
        errors, times = [], []
        for snr_db, count in OBJECTIVE:
            at, spent = [], []
            for ids in parts:
                scenes = EvalScenes(CONFIG.scene, JUDGED.test_seed).batch(
                    ids, snr_db=snr_db, num_sources=count
                )
                started = time.process_time()
                found = locate(scenes)
                spent.append(1e3 * (time.process_time() - started) / len(ids))
                at.append(to_numpy(capped_error(match(found, scenes.sources))))
            errors.append(np.concatenate(at))
            times.append(median(spent))
        points[name] = float(np.mean(times)), bootstrap_mean(np.mean(errors, axis=0))
    return points


def draw(file: str, points: dict[str, tuple[float, Interval]]) -> None:
    """Draw the error of every readout against its time."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for number, (name, (spent, error)) in enumerate(sorted(points.items(), key=lambda x: x[1][0])):
        bars = [[error.mean - error.low], [error.high - error.mean]]
        axes.errorbar(spent, error.mean, yerr=bars, fmt="o", capsize=2)
        at, beside = (error.high, 4) if number % 2 else (error.low, -12)
        axes.annotate(name, (spent, at), (0, beside), textcoords="offset points", ha="center")
    kept = [KEPT.load(PACKAGED, snr_db, count) for snr_db, count in OBJECTIVE]
    if all(kept):
        size = next(iter(points.values()))[1].n
        limit = float(np.mean([each["shape"].error[:size].mean() for each in kept if each]))
        axes.axhline(limit, color="grey", linestyle="--", label="limit, shape")
        axes.legend()
    axes.set(xscale="log", xlabel="CPU time [ms a scene]", ylabel="capped error, -5 and 0 dB")
    axes.xaxis.set_major_locator(FixedLocator([0.5, 1, 2, 5, 10, 20, 50, 100]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(ScalarFormatter())
    axes.margins(x=0.15, y=0.1)
    size = next(iter(points.values()))[1].n
    axes.set_title(f"{size} scenes for each of -5, 0 dB and K = 1, 2, K told")
    figure.savefig(file, dpi=150)


def row(name: str, found: dict[str, np.ndarray], limit: np.ndarray | None) -> str:
    """Return a row of the table."""
    cells = [str(len(found["error"])), str(bootstrap_mean(found["error"]))]
    cells.append(f"{found['expected'].mean():.3f}")
    size = 0 if limit is None else min(len(limit), len(found["error"]))
    cells.append(str(bootstrap_mean(found["error"][:size] - limit[:size])) if size else "")
    cells.append(str(bootstrap_mean(found["error"] - found["sml"])) if "sml" in found else "")
    cells.append(f"{median(found['ms']):.0f}")
    if "worth" in found:
        cells.append(f"{np.median(found['worth']):.0f} ({found['worth'].min():.0f})")
        cells.append(f"{int(found['again'].sum())}, {int(found['poor'].sum())}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Measure every point, print the table, and write it with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--snr-db", type=float, nargs="+", default=list(JUDGED.report_snr_db))
    parser.add_argument("--num-sources", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--scenes", type=int, default=256, help="per SNR and K")
    parser.add_argument("--sml", action="store_true", help="compare with stochastic ML, too")
    parser.add_argument("--figure", help="PNG of error against time, of all readouts")
    parser.add_argument("--model", type=Path, help="run or model folder of a network, drawn too")
    parser.add_argument("--write", action="store_true", help=f"the table into {DOCUMENT}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    command = f"`{shlex.join(['python', 'benchmarks/posterior.py', *sys.argv[1:]])}`"
    if args.figure:
        points = compare(args.scenes, args.model)
        draw(args.figure, points)
        lines = ["| readout, K told | capped error -5, 0 dB | ms/scene |", "|---|---|---|"]
        lines += [f"| {name} | {error} | {spent:.1f} |" for name, (spent, error) in points.items()]
        table = "\n".join(lines)
        print(table)
        if args.write:
            write_tables(DOCUMENT, {"readouts": f"{command}\n\n{table}"})
        return
    heads = ["K, SNR", "n", "error", "expected", "- limit", "- sml", "ms/scene"]
    heads += ["effective points, median (least)", "sampled again, poor"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    print("\n".join(lines))
    found, limits = {}, {}
    for count in args.num_sources:
        for snr_db in args.snr_db:
            at = count, snr_db
            found[at] = measure(snr_db, count, args.scenes, sml=args.sml)
            kept = KEPT.load(PACKAGED, snr_db, count)
            limits[at] = kept["shape"].error if kept else None
            lines.append(row(f"{count}, {snr_db:g} dB", found[at], limits[at]))
            print(lines[-1], flush=True)
    judged = [(k, snr) for snr, k in OBJECTIVE]
    if all(at in found for at in judged):
        names = [n for n in ("error", "expected", "sml", "ms") if n in found[judged[0]]]
        mean = {n: np.mean([found[at][n] for at in judged], axis=0) for n in names}
        size = min(args.scenes, *(len(limits[at]) for at in judged))
        limit = np.mean([limits[at][:size] for at in judged], axis=0)
        lines.append(f"{row('objective', mean, limit)} | |")
        print(lines[-1])
    if args.write:
        write_tables(DOCUMENT, {"readout": f"{command}\n\n" + "\n".join(lines)})


if __name__ == "__main__":
    main()
