"""Networks against stochastic ML and MUSIC, on the same fresh scenes, in one run.

    python benchmarks/accuracy.py [--scene local|full] [--networks dictionary unrolled:2 ...]
        [--seeds 0 1 2] [--epochs 30] [--scenes 2048] [--figure FILE.png] [--write NAME]

Every network is trained with every seed, and scored on scenes that no training and no search has
seen: with MUSIC on its covariance, and with Fisher scoring after that (`+scoring`, two steps; the
classical methods get it too). All are compared with stochastic ML scene by scene. A scene is the
unit of chance: its errors at all SNRs and source numbers, and a network's over its training seeds,
are averaged first. On a CPU everything runs on one thread, and times are CPU time, median over
batches. Trainings and scores are kept in runs/benchmark: a run that was interrupted goes on. With
--write the table, as printed, goes into docs/network.md at <!-- NAME -->, that of --confidence at
<!-- confidence -->, each with the command that made it.
"""

import argparse
import shlex
import sys
from dataclasses import replace
from pathlib import Path

from trained import SCENES, Scores, config_of, place, scores, trained  # isort: skip  (sets threads)

import numpy as np
import torch
from documents import write_tables
from torch import nn

from trainer.confidence import BINS, calibrate, near_a_source
from trainer.config import TrainConfig
from trainer.estimates import Estimates
from trainer.evaluation import Conditions, classical, network_estimate
from trainer.intervals import Interval, bootstrap_mean, paired_difference, wilson_share
from trainer.localisation import localise
from trainer.model import Model
from trainer.one_step import one_step
from trainer.scene import EvalScenes, Scenes
from trainer.scoring import CHUNK
from trainer.search_grid import search_grid

SNR_DB = {"local": (-10.0, -5.0, 0.0), "full": (-10.0, -5.0, 0.0, 5.0)}
OBJECTIVE_SNR_DB = (-5.0, 0.0)
COUNTS = {"local": (1, 2), "full": (1, 2, 3)}
DOCUMENT = Path("docs/network.md")
FRESH_SEED = 7_000_003
"""Of the scenes: not one of `EvaluationConfig`."""
REFERENCE = "sml"
CLASSICAL = (
    "lmmse_beamformer+scoring",
    "lmmse_beamformer",
    "lmmse_music+scoring",
    "lmmse_music",
    "pinv_music",
)
WEAK = ("lmmse_music", "pinv_music")
"""What a network has to beat everywhere."""
DEFAULT = ("unrolled:2", "unrolled:1", "unrolled:4", "dictionary", "unrolled:2:32")


def readouts(network: nn.Module, name: str, conditions: Conditions) -> dict[str, Scores]:
    """MUSIC on a network's covariance, and scoring from where it ends; K told.

    Args:
        name: under which its scores are kept, unlike that of any other training.
    """
    scene, device = conditions.scene, conditions.device
    search = search_grid(scene, torch.float32, device)
    music = network_estimate(network, scene, device)
    found: list[Estimates] = []

    def remembered(scenes: Scenes) -> Estimates:
        found.append(music(scenes))
        return found[-1]

    def sharpened(scenes: Scenes) -> Estimates:
        return one_step(scenes, found.pop(0), search)

    names = name, f"{name}+scoring"
    if not place(names[1], conditions).exists():
        place(names[0], conditions).unlink(missing_ok=True)  # the second goes on from the first
    first = scores(names[0], remembered, conditions)
    second = scores(names[1], sharpened, conditions)
    together = first.milliseconds + second.milliseconds
    return {"": first, "+scoring": replace(second, milliseconds=together)}


def mean_of(parts: list[Scores]) -> Scores:
    """One estimator, every scene's errors averaged over training seeds."""
    columns = {
        name: np.mean([getattr(part, name) for part in parts], axis=0)
        for name in ("capped_error", "success", "milliseconds", "told")
    }
    first = parts[0]
    return Scores(first.scene_id, first.snr_db, first.num_sources, **columns)


def shown(interval: Interval, sign: str = "") -> str:
    """Mean and interval."""
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def difference(one: Scores, other: Scores, snr_db: tuple[float, ...], *count: int) -> Interval:
    """Of capped errors, paired by scene."""
    pair = (each.per_scene("capped_error", snr_db, count or None) for each in (one, other))
    return paired_difference(*pair)


def report(name: str, mine: Scores, reference: Scores, snr_db: tuple[float, ...]) -> str:
    """A row of the table."""
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


def everywhere(rows: dict[str, Scores], conditions: Conditions) -> None:
    """Capped error of the networks, minus those of MUSIC and ML, at every SNR and K."""
    others = (*WEAK, REFERENCE)
    heads = ["estimator", "SNR/dB", "K", "capped error", *(f"- {other}" for other in others)]
    print("\n| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for name, mine in rows.items():
        for snr, count in conditions.points() if name not in (REFERENCE, *CLASSICAL) else ():
            error = bootstrap_mean(mine.per_scene("capped_error", (snr,), (count,)))
            gaps = (difference(mine, rows[other], (snr,), count) for other in others)
            cells = " | ".join([shown(error), *(shown(gap, "+") for gap in gaps)])
            print(f"| {name} | {snr:g} | {count} | {cells} |", flush=True)


def reliability(network: nn.Module, config: TrainConfig, conditions: Conditions) -> str:
    """How often estimates of some confidence are right; K known, and asked of the eigenvalues."""
    model = Model(config, network, calibrate(network, config))
    lines = [
        "| K | confidence | estimates | mean confidence | share right |",
        "|---|---|---|---|---|",
    ]
    for know in (True, False):
        said, right, told = [], [], []
        for snr, count in conditions.points():
            for first in range(0, conditions.num_scenes, CHUNK):
                ids = range(first, min(first + CHUNK, conditions.num_scenes))
                scenes = EvalScenes(conditions.scene, conditions.seed).batch(
                    ids, snr_db=snr, num_sources=count
                )
                found = localise(model, scenes, know_sources=know, device="cpu")
                places = {n: torch.from_numpy(v) for n, v in found.arrays().items()}
                kept = places["active"]
                said.append(places["confidence"][kept])
                right.append(hits(places, scenes)[kept])
                told.append(places["num_sources"] == count)
        confidence, correct = torch.cat(said).double(), torch.cat(right).double()
        share = torch.cat(told).double().mean()
        label = "known" if know else f"asked, right in {share:.2f}"
        off = 0.0
        for part in confidence.argsort().tensor_split(BINS):
            hit = wilson_share(float(correct[part].mean()), len(part))
            mean = float(confidence[part].mean())
            off += abs(mean - hit.mean) * len(part) / len(confidence)
            low, high = float(confidence[part].min()), float(confidence[part].max())
            span = f"{low:.2f} to {high:.2f}"
            lines.append(f"| {label} | {span} | {len(part)} | {mean:.3f} | {shown(hit)} |")
        total = f"expected calibration error {off:.3f}"
        lines.append(f"| {label} | all | {len(confidence)} | {total} | |")
    return "\n".join(lines)


def hits(places: dict[str, torch.Tensor], scenes: Scenes) -> torch.Tensor:
    """Which estimates lie near a source."""
    names = ("azimuth", "elevation", "range_m", "resolved", "active")
    return near_a_source(Estimates(**{name: places[name] for name in names}), scenes)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", choices=SCENES, default="local")
    parser.add_argument("--networks", nargs="+", default=DEFAULT)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30, help="of --steps steps")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--scenes", type=int, default=2048, help="per SNR and source number")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--figure", help="PNG of the trade-off")
    parser.add_argument("--confidence", help="network whose confidence is checked, first seed")
    parser.add_argument("--write", metavar="NAME", help=f"place of the table in {DOCUMENT}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    budget = {"steps_per_epoch": args.steps, "batch_size": args.batch}
    configs = {
        network: [
            config_of(args.scene, network, seed, args.epochs, args.device, **budget)
            for seed in args.seeds
        ]
        for network in args.networks
    }
    scene = next(iter(configs.values()))[0].scene
    snr_db = SNR_DB[args.scene]
    conditions = Conditions(
        scene, FRESH_SEED, snr_db, args.scenes, args.device, COUNTS[args.scene]
    )
    about = (
        f"{args.scene}: {args.scenes} scenes for each of {len(conditions.points())} conditions; "
        f"{args.epochs * args.steps} steps of {args.batch} scenes, training seeds {args.seeds}"
    )
    print(f"{about}\n")
    heads = ["estimator", "capped error -5, 0 dB", "- sml", "- sml at -10 dB"]
    heads += [f"success {snr:g} dB" for snr in snr_db] + ["ms/scene", "sml's / its"]
    lines: list[str] = []

    def add(line: str) -> None:
        lines.append(line)
        print(line, flush=True)

    add("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    rows = {}
    for name in (REFERENCE, *CLASSICAL):
        rows[name] = scores(name, classical(name, scene, args.device), conditions)
        add(report(name, rows[name], rows[REFERENCE], snr_db))
    for network, trainings in configs.items():
        seconds, found = [], {"": [], "+scoring": []}
        for config in trainings:
            made, spent = trained(config, args.device)
            seconds.append(spent)
            for how, part in readouts(made, config.digest, conditions).items():
                found[how].append(part)
        for how, parts in found.items():
            name = f"{network}{how}"
            rows[name] = mean_of(parts)
            add(report(name, rows[name], rows[REFERENCE], snr_db))
            each = (difference(part, rows[REFERENCE], OBJECTIVE_SNR_DB).mean for part in parts)
            if len(parts) > 1:
                add(f"| ... by seed | | {', '.join(f'{mean:+.3f}' for mean in each)} |")
        print(f"| trained in {np.mean(seconds):.0f} CPU-s |", flush=True)
    everywhere(rows, conditions)
    command = f"`python benchmarks/accuracy.py {shlex.join(sys.argv[1:])}`"
    tables = {args.write: "\n".join((f"{command}; {about}", "", *lines))}
    if args.confidence:
        config = configs[args.confidence][0]
        made = trained(config, args.device)[0]
        tables["confidence"] = f"{command}\n\n{reliability(made, config, conditions)}"
        print(f"\n{tables['confidence']}", flush=True)
    if args.write:
        write_tables(DOCUMENT, tables)
    if args.figure:
        draw(rows, args.networks, args.figure)


def draw(rows: dict[str, Scores], networks: list[str], file: str) -> None:
    """Error against time, relative to stochastic ML's."""
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
