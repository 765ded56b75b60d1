"""The readout `posterior` on the held-out `local` scenes: error above the limit, and time.

    python benchmarks/posterior.py [--snr-db -5 0] [--num-sources 1 2] [--scenes 128] [--sml]
        [--write]

K is told. Differences to the kept limit *shape* and to stochastic ML are paired by scene, with
95 % intervals; times are CPU time on one thread, median over batches. With --write the table goes
into docs/limit.md at <!-- readout -->.
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

from trainer.config import TrainConfig
from trainer.evaluation import (
    capped_error,
    classical_estimator,
    match,
    posterior_readout,
    to_numpy,
)
from trainer.intervals import bootstrap_mean
from trainer.limits import PACKAGED, KeptLimits
from trainer.scenes import EvalScenes

CONFIG = TrainConfig.from_params(LOCAL_SCENE)
JUDGED = CONFIG.evaluation
KEPT = KeptLimits(CONFIG.scene, JUDGED.test_seed)
DOCUMENT = Path("docs/limit.md")
BATCH = 32


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
    parser.add_argument("--scenes", type=int, default=128, help="per SNR and K")
    parser.add_argument("--sml", action="store_true", help="compare with stochastic ML, too")
    parser.add_argument("--write", action="store_true", help=f"the table into {DOCUMENT}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    heads = ["K, SNR", "n", "error", "expected", "- limit", "- sml", "ms/scene"]
    heads += ["effective points, median (least)", "sampled again, poor"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    print("\n".join(lines))
    points, limits = {}, {}
    for count in args.num_sources:
        for snr_db in args.snr_db:
            at = count, snr_db
            points[at] = measure(snr_db, count, args.scenes, sml=args.sml)
            kept = KEPT.load(PACKAGED, snr_db, count)
            limits[at] = kept["shape"].error if kept else None
            lines.append(row(f"{count}, {snr_db:g} dB", points[at], limits[at]))
            print(lines[-1], flush=True)
    judged = [(k, snr) for k in (1, 2) for snr in JUDGED.objective_snr_db]
    if all(at in points for at in judged):
        names = [n for n in ("error", "expected", "sml", "ms") if n in points[judged[0]]]
        mean = {n: np.mean([points[at][n] for at in judged], axis=0) for n in names}
        size = min(args.scenes, *(len(limits[at]) for at in judged))
        limit = np.mean([limits[at][:size] for at in judged], axis=0)
        lines.append(f"{row('objective', mean, limit)} | |")
        print(lines[-1])
    if args.write:
        command = f"`{shlex.join(['python', 'benchmarks/posterior.py', *sys.argv[1:]])}`"
        write_tables(DOCUMENT, {"readout": f"{command}\n\n" + "\n".join(lines)})


if __name__ == "__main__":
    main()
