"""Share of trainings that diverge under `subspace`, by network, regime and spectral backend.

    python benchmarks/nan_rates.py [--seeds 8] [--steps 30] [--cache FILE] [--write]

The networks, regimes and fields of benchmarks/eigengap.toml, the term at weight 1 and the design's
margin, at the middle one of the design's learning rates; but short trainings of small batches, in
this process on one thread (about 17 CPU-min), without validation. A training has diverged if the
trainer raises `Diverged`, which a search records as the outcome `diverged`. Every cell (network
and regime) has training seeds of its own, which all backends share, so that the trainings behind
a share are independent. Intervals: Clopper and Pearson, 95 %.

Trainings are kept in the cache as they end, and found there when the command is given again.
"""

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from documents import write_tables
from scipy import stats

from search.reruns import Design
from trainer.config import TrainConfig
from trainer.failure import Diverged
from trainer.training import TrainingLoop

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "eigengap_map.md"
DESIGN = Design.read(str(ROOT / "benchmarks" / "eigengap.toml"))
BACKENDS: dict[str, dict[str, Any]] = {
    "exact": {},
    "gram": {},
    "masked": {"spectral.deg_thresh": 1e-6},
    "eigh": {},
    "svd": {},
}
"""Every backend but `auto`, which is one of them, with its fields beside the name. The threshold
is the middle of what spaces draw."""
FACTOR = "factor"
"""The one kind of network that hands the backend `gram` its factor."""

Training = dict[str, Any]


def configs(seeds: int, steps: int, batch: int) -> Iterator[tuple[Training, TrainConfig]]:
    """Yield what identifies a training, and its configuration."""
    term = {n: v for n, v in DESIGN.terms["subspace"].items() if n != "eigengap.weight"}
    rate = sorted(DESIGN.terms["none"]["optimizer.learning_rate"])[1]
    short = {"epochs": 1, "steps_per_epoch": steps, "batch_size": batch}
    own = {**DESIGN.base, **short, **term, "eigengap.weight": 1.0, "optimizer.learning_rate": rate}
    cells = [(network, regime) for network in DESIGN.networks for regime in DESIGN.regimes]
    for seed in range(seeds):  # first, so that all cells grow alike
        for cell, (network, regime) in enumerate(cells):
            for backend, fields in BACKENDS.items():
                if backend == "gram" and network != FACTOR:
                    continue
                about = {"network": network, "regime": regime, "backend": backend, "number": seed}
                params = own | DESIGN.networks[network] | DESIGN.regimes[regime] | fields
                params |= {"spectral.backend": backend, "seed": 1000 * (cell + 1) + seed}
                yield about, TrainConfig.from_params(params)


def trained(config: TrainConfig) -> Training:
    """Train; return the steps taken, the CPU time [s], and the cause and term of a divergence."""
    began = time.process_time()
    loop = TrainingLoop(config, torch.device("cpu"))
    found: Training = {"diverged": False}
    try:
        for _ in range(config.steps_per_epoch):
            loop.step()
    except Diverged as error:
        failure = error.failure
        found = {"diverged": True, "cause": failure.cause.value, "term": failure.term}
    return found | {"steps": loop.steps, "seconds": time.process_time() - began}


def measured(cache: Path, seeds: int, steps: int, batch: int) -> list[Training]:
    """Return all trainings; those that the cache lacks are made and added to it."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    known: dict[str, Training] = {}
    if cache.exists():
        known = {row["config"]: row for row in map(json.loads, cache.read_text().splitlines())}
    rows = []
    for about, config in configs(seeds, steps, batch):
        if (row := known.get(config.digest)) is None:
            row = {"config": config.digest, **about, **trained(config)}
            with cache.open("a") as file:
                file.write(json.dumps(row) + "\n")
        rows.append(row)
    return rows


def tied(batch: int) -> str:
    """Return a table of the scenes in first batches, before any step, whose R has two equal
    eigenvalues to the last bit, as both of torch's decompositions return them."""
    solvers = {  # with vectors, as the backends call them: values alone take other routines
        "eigh": lambda r: torch.linalg.eigh(r)[0],
        "svd": lambda r: torch.linalg.svd(r)[1],
    }
    found: dict[str, Counter[str]] = {name: Counter() for name in DESIGN.networks}
    for about, config in configs(1, 1, batch):
        if about["backend"] != "exact":
            continue
        loop = TrainingLoop(config, torch.device("cpu"))
        with torch.no_grad():
            covariance = loop.network(loop.draw()).dense()
        count = found[about["network"]]
        count["scenes"] += len(covariance)
        for name, solve in solvers.items():
            count[name] += int((solve(covariance).diff() == 0).any(-1).sum())
    lines = ["| network | ties by `eigh` | ties by `svd` |", "|---|---|---|"]
    for network, count in found.items():
        cells = [f"{count[name]} of {count['scenes']}" for name in solvers]
        lines.append(f"| {network} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def share(rows: list[Training]) -> str:
    """Return how many of the trainings diverged, with the interval of their share."""
    if not rows:
        return ""
    lost = sum(row["diverged"] for row in rows)
    ends = stats.binomtest(lost, len(rows)).proportion_ci(0.95, method="exact")
    return f"{lost} of {len(rows)} [{ends.low:.2f}, {ends.high:.2f}]"


def table(rows: list[Training], group: str) -> str:
    """Return a table of a row per network or regime and a column per backend."""
    lines = [f"| {group} | " + " | ".join(f"`{name}`" for name in BACKENDS) + " |"]
    lines.append("|---" * (len(BACKENDS) + 1) + "|")
    for value in dict.fromkeys(row[group] for row in rows):
        cells = [
            share([row for row in rows if (row[group], row["backend"]) == (value, backend)])
            for backend in BACKENDS
        ]
        lines.append(f"| {value} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def about(rows: list[Training], steps: int, batch: int) -> str:
    """Return a paragraph on the trainings, and when and why they diverged."""
    lost = [row for row in rows if row["diverged"]]
    causes = Counter(f"`{row['cause']}` in `{row['term']}`" for row in lost)
    when = Counter((row["network"], row["backend"]) for row in lost if row["steps"] == 0)
    first = ", ".join(f"{n} of {network} with `{b}`" for (network, b), n in when.items())
    minutes = sum(row["seconds"] for row in rows) / 60
    said = ", ".join(f"{n} {cause}" for cause, n in causes.most_common()) or "none"
    return (
        f"Diverged trainings of {steps} steps of {batch} scenes and their share [95 %, Clopper "
        "and Pearson], `subspace` at weight 1; the second table pools networks, the third counts "
        "scenes of first batches, before any step, whose R has two eigenvalues equal to the last "
        f"bit. Causes: {said}. In the very first step: {first or 'none'}. `auto` is `gram` for "
        f"`{FACTOR}` and `exact` for the others; {len(rows)} trainings, {minutes:.0f} CPU-min."
    )


def main() -> None:
    """Train what is missing, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=8, help="trainings of a cell and backend")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--cache", type=Path, default=ROOT / "runs" / "nan_rates.jsonl")
    parser.add_argument("--write", action="store_true", help=f"into {DOCUMENT.name}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = measured(args.cache, args.seeds, args.steps, args.batch)
    parts = [table(rows, "network"), table(rows, "regime"), tied(args.batch)]
    text = "\n\n".join([*parts, about(rows, args.steps, args.batch)])
    print(text)
    if args.write:
        write_tables(DOCUMENT, {"nan rates": text})


if __name__ == "__main__":
    main()
