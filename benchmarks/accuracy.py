"""Networks against stochastic ML and MUSIC, on the same fresh scenes, in one run.

    python benchmarks/accuracy.py [--scene local full] [--networks dictionary unrolled:2 ...]
        [--seeds 0 1 2] [--epochs 30] [--scenes 2048] [--figure FILE.png] [--write]

Every network is trained with every seed, and scored on scenes that no training and no search has
seen: with MUSIC on its covariance, and with Fisher scoring after that (`+scoring`, two steps; the
classical methods get it too). All are compared with stochastic ML scene by scene. A scene is the
unit of chance: its errors at all SNRs and source numbers, and a network's over its training seeds,
are averaged first. On a CPU everything runs on one thread, and times are CPU time, median over
batches. Trainings and scores are kept in runs/benchmark: a run that was interrupted goes on.

By default both scenes: `local` as published, `full` (the 12x12 panel) on a budget that one
thread can pay, about an hour together. With --write the tables, as printed, go into
docs/network.md at <!-- local -->, <!-- local by SNR and K --> and so on, each with the command
that made it.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

from trained import SCENES, Scores, config_of, scores, trained  # isort: skip  (sets threads)

import numpy as np
import torch
from documents import write_tables
from paired import (
    CLASSICAL,
    DOCUMENT,
    OBJECTIVE_SNR_DB,
    REFERENCE,
    difference,
    everywhere,
    mean_of,
    readouts,
    shown,
)

from trainer.evaluation import Conditions, classical_estimator
from trainer.intervals import bootstrap_mean

SNR_DB = {"local": (-10.0, -5.0, 0.0), "full": (-10.0, -5.0, 0.0, 5.0)}
COUNTS = {"local": (1, 2), "full": (1, 2, 3)}
FRESH_SEED = 13_000_003
"""Of the scenes: nothing was chosen, tuned or published on them before."""


@dataclass(frozen=True)
class Plan:
    """The trainings and scores of one scene."""

    networks: tuple[str, ...]
    seeds: tuple[int, ...]
    epochs: int
    steps: int
    batch: int
    scenes: int
    """Per SNR and source number."""


PLANS = {
    "local": Plan(
        ("unrolled:1", "unrolled:2", "unrolled:4", "dictionary"), (0, 1, 2), 30, 20, 64, 2048
    ),
    "full": Plan(("dictionary:32",), (0,), 8, 20, 32, 192),
}


def report(name: str, mine: Scores, reference: Scores, snr_db: tuple[float, ...]) -> str:
    """Return one row of the table."""
    error = bootstrap_mean(mine.per_scene("capped_error", OBJECTIVE_SNR_DB))
    columns = [shown(error)]
    for some in (OBJECTIVE_SNR_DB, snr_db[:1]):
        same = mine is reference
        columns.append("" if same else shown(difference(mine, reference, some), "+"))
    for snr in snr_db:
        columns.append(shown(bootstrap_mean(mine.per_scene("success", (snr,)))))
    times = float(mine.milliseconds)
    cells = " | ".join(columns)
    ratio = f"{float(reference.milliseconds) / times:.1f}"
    return f"| {name} | {cells} | {times:.2f} | {ratio} |"


def main() -> None:
    """Measure both scenes, print the tables, and write them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", nargs="+", choices=SCENES, default=list(SCENES))
    parser.add_argument("--networks", nargs="+")
    parser.add_argument("--seeds", nargs="+", type=int)
    parser.add_argument("--epochs", type=int, help="of --steps steps")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--scenes", type=int, help="per SNR and source number")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--figure", help="PNG of the trade-off on the first scene")
    parser.add_argument("--write", action="store_true", help=f"the tables into {DOCUMENT}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    asked = {each.name: getattr(args, each.name) for each in fields(Plan)}
    asked = {name: value for name, value in asked.items() if value is not None}
    command = f"`{shlex.join(['python', 'benchmarks/accuracy.py', *sys.argv[1:]])}`"
    tables: dict[str, str] = {}
    for name in args.scene:
        plan = replace(PLANS[name], **asked)
        figure = args.figure if name == args.scene[0] else None
        tables |= measured(name, plan, args.device, figure=figure)
    if args.write:
        write_tables(DOCUMENT, {name: f"{command}{text}" for name, text in tables.items()})


def measured(name: str, plan: Plan, device: str, *, figure: str | None) -> dict[str, str]:
    """Train and score on one scene; print the tables and return them by name.

    Args:
        figure: file that the trade-off is drawn into.
    """
    budget = {"steps_per_epoch": plan.steps, "batch_size": plan.batch}
    configs = {
        network: [
            config_of(name, network, seed, plan.epochs, device, **budget) for seed in plan.seeds
        ]
        for network in plan.networks
    }
    scene = next(iter(configs.values()))[0].scene
    snr_db = SNR_DB[name]
    conditions = Conditions(scene, FRESH_SEED, snr_db, plan.scenes, device, COUNTS[name])
    heads = ["estimator", "capped error -5, 0 dB", "- sml", "- sml at -10 dB"]
    heads += [f"success {snr:g} dB" for snr in snr_db] + ["ms/scene", "sml's / its"]
    lines: list[str] = []

    def add(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    add(
        f"{name}: {plan.scenes} scenes for each of {len(conditions.points())} conditions; "
        f"{plan.epochs * plan.steps} steps of {plan.batch} scenes, training seeds "
        f"{', '.join(map(str, plan.seeds))}\n"
    )
    add("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    rows = {}
    for each in (REFERENCE, *CLASSICAL):
        rows[each] = scores(each, classical_estimator(each, scene, device), conditions)
        add(report(each, rows[each], rows[REFERENCE], snr_db))
    for network, trainings in configs.items():
        seconds, found = [], {"": [], "+scoring": []}
        for config in trainings:
            made, spent = trained(config, device)
            seconds.append(spent)
            for how, part in readouts(made, config.digest, conditions).items():
                found[how].append(part)
        for how, parts in found.items():
            each = f"{network}{how}"
            rows[each] = mean_of(parts)
            add(report(each, rows[each], rows[REFERENCE], snr_db))
            by_seed = (difference(part, rows[REFERENCE], OBJECTIVE_SNR_DB).mean for part in parts)
            if len(parts) > 1:
                add(f"| ... by seed | | {', '.join(f'{mean:+.3f}' for mean in by_seed)} |")
        print(f"| trained in {np.mean(seconds):.0f} CPU-s |", flush=True)
    everything = everywhere(rows, conditions)
    tables = {name: "; " + "\n".join(lines), f"{name} by SNR and K": f"\n\n{everything}"}
    print("".join(list(tables.values())[1:]), flush=True)
    if figure:
        draw(rows, plan.networks, figure)
    return tables


def draw(rows: dict[str, Scores], networks: Sequence[str], file: str) -> None:
    """Draw error against time, relative to stochastic ML."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for how, marker in (("", "o"), ("+scoring", "s")):
        points = [rows[f"{network}{how}"] for network in networks]
        gaps = [difference(point, rows[REFERENCE], OBJECTIVE_SNR_DB) for point in points]
        times = [float(point.milliseconds) for point in points]
        bars = [[g.mean - g.low for g in gaps], [g.high - g.mean for g in gaps]]
        means = [g.mean for g in gaps]
        label = "MUSIC and scoring" if how else "MUSIC"
        axes.errorbar(times, means, bars, fmt=marker, capsize=3, label=label)
        for network, time, mean in zip(networks, times, means, strict=True):
            axes.annotate(network, (time, mean), xytext=(6, 4), textcoords="offset points")
    first, last = axes.get_xlim()
    axes.set_xlim(first, last + 0.25 * (last - first))  # room for the labels, which stand right
    axes.axhline(0, color="0.5", linewidth=1, linestyle="--")
    axes.set(
        xlabel="CPU time per scene on one thread [ms]",
        ylabel="capped error minus stochastic ML's, -5 and 0 dB",
    )
    axes.legend()
    figure.savefig(file, dpi=150)
    print(f"\nfigure: {file}")


if __name__ == "__main__":
    main()
