"""A curriculum for the whole scene of the preset `full`: the 6x6 panel first, then the 12x12 one.

    python benchmarks/curriculum.py [--seeds 0] [--small-epochs 16] [--small-stop 16] [--epochs 16]
        [--batch 32] [--rate 5e-3] [--scenes 64] [--few 32] [--cache FOLDER]
        [--only train|classical] [--write]

An unrolled network of three stages and width 32 is trained on the 6x6 panel with 16 antennas, at
0.5 to 10 m, with up to five sources at -15 to 20 dB, in epochs of 50 steps of 64 scenes, and goes
on from there on the 12x12 panel, in epochs of 50 steps of --batch scenes. Its range planes are the
15 of the large panel from the start. With --small-stop the first training is left after so many of
its epochs, before its learning rate has come down.

Scenes are fresh, and the same for all. At the SNRs of the objective the network is compared with
stochastic ML and with itself before the second training, K told, and with ML where both find K by
the likelihood: the network by the evidence of the fits that scoring reaches, ML by the ratio
(`trainer.estimation.source_number`). At all SNRs, on --few scenes, it is
compared with LMMSE-MUSIC. Errors are averaged over training seeds, scene by scene; intervals are
95 % bootstrap over scenes. Trainings and scores are kept in --cache: a run that was interrupted
goes on. With --write the tables go into docs/network.md at <!-- curriculum -->.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from trained import FOLDER, Scores, place, scores  # isort: skip  (sets threads)

import numpy as np
import torch
from documents import write_tables
from paired import DOCUMENT, OBJECTIVE_SNR_DB, REFERENCE, difference, mean_of, shown
from torch import Tensor, nn

from spaces.blocks import NOISE_FLOOR
from spaces.presets import EVERY_SNR, FULL_SCENE
from trainer.config import SceneConfig, TrainConfig
from trainer.estimation import (
    Localiser,
    build_localiser,
    build_source_counter,
    covariance_localiser,
    likeliest_number,
    refined,
)
from trainer.evaluation import Conditions, classical_estimator, common_scenes, gospa, match
from trainer.intervals import bootstrap_mean, paired_difference
from trainer.localisation import adapt_network
from trainer.scenes import Scenes, search_grid
from trainer.training import TrainState, restore_network, started_config, train

SMALL_PANEL = {"scene.num_horizontal": 6, "scene.num_vertical": 6}
NETWORK = {
    "network.kind": "unrolled",
    "network.stages": 3,
    "network.width": 32,
    "network.noise_floor": NOISE_FLOOR,
    "network.planes": 15,
}
WATCHED = {
    "evaluation.num_scenes": 16,
    "evaluation.num_test_scenes": 1,
    "evaluation.baselines": (),
    "evaluation.report_snr_db": (0.0,),
}
"""Nothing more is spent on the scenes of a search: the benchmark has its own."""
SNR_DB = (-15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0)
FRESH_SEED = 23_000_003
"""Of the scenes: nothing was chosen or tuned on them."""
WEAK = "lmmse_music"
HOW = ("scoring", "judged")
"""What follows MUSIC on a network's covariance; `localise` judges."""
BEGUN, LARGE = "small panel's weights", "curriculum"
"""The network before and after the second training."""


def trained_until(config: TrainConfig, file: Path, stop: int) -> float:
    """Train for `stop` epochs and keep the state in a file; return the CPU seconds it took."""
    clock = file.with_suffix(".seconds")
    if not file.exists():
        partial = file.with_suffix(".partial.pt")
        state = TrainState.load(partial) if partial.exists() else None
        spent = float(clock.read_text()) if state else 0.0
        started = time.process_time()
        for report in train(config, resume=state):
            report.state.save(partial)
            seconds = spent + time.process_time() - started
            clock.write_text(f"{seconds}")
            print(
                f"{file.stem} epoch {report.epoch} of {stop}: loss {report.losses['total']:.3f}, "
                f"validation {report.capped_error:.3f}, {seconds:.0f} CPU-s",
                file=sys.stderr,
                flush=True,
            )
            if report.epoch == stop:
                break
        partial.rename(file)
    return float(clock.read_text())


def both_stages(args: argparse.Namespace, seed: int) -> tuple[list[Path], list[float]]:
    """Return the states that the stages of a seed end with, and the CPU seconds they took."""
    common = FULL_SCENE | EVERY_SNR | NETWORK | WATCHED | {"seed": seed, "device": "cpu"}
    budget = {"epochs": args.small_epochs, "steps_per_epoch": 50, "batch_size": 64}
    small = TrainConfig.from_params({**common, **SMALL_PANEL, **budget})
    files = [args.cache / f"{small.digest}-{args.small_stop}.pt"]
    spent = [trained_until(small, files[0], args.small_stop)]
    budget = {"epochs": args.epochs, "steps_per_epoch": 50, "batch_size": args.batch}
    rate = {"optimizer.learning_rate": args.rate}
    large = started_config(files[0], {**common, **budget, **rate})
    files.append(args.cache / f"{large.digest}.pt")
    spent.append(trained_until(large, files[1], args.epochs))
    return files, spent


def loaded(file: Path, scene: SceneConfig) -> nn.Module:
    """Return the network of a state, on this scene's panel."""
    config, network = restore_network(file, torch.device("cpu"))
    return network if config.scene == scene else adapt_network(network, config, scene)


def scored(
    files: dict[str, list[Path]], classical: tuple[str, ...], conditions: Conditions, cache: Path
) -> dict[str, Scores]:
    """Return the scores of networks, judged by the likelihood, and of classical methods."""
    scene = conditions.scene
    rows = {
        name: scores(name, classical_estimator(name, scene), conditions, cache)
        for name in classical
    }
    for name, states in files.items():
        for how in HOW:
            parts = []
            for state in states:
                locate = refined(covariance_localiser(loaded(state, scene), scene), scene, how=how)
                parts.append(
                    scores(
                        f"{state.stem}+{how}",
                        lambda s, locate=locate: locate(s, s.sources.num_sources),
                        conditions,
                        cache,
                    )
                )
            rows[f"{name}+{how}"] = mean_of(parts)
    return rows


def with_k_asked(
    name: str,
    count: Callable[[Scenes], Tensor],
    locate: Localiser,
    conditions: Conditions,
    cache: Path,
) -> np.ndarray:
    """Return 1 where K is right, and GOSPA, of every scene and condition: [2, S]; kept."""
    file = place(f"{name}, K asked", conditions, cache)
    if not file.exists():
        columns = []
        for snr, number in conditions.points():
            for ids in conditions.chunks():
                scenes = common_scenes(conditions, snr, number, ids)
                found = count(scenes)
                distance = gospa(match(locate(scenes, found), scenes.sources))
                columns.append(torch.stack([(found == number).double(), distance.double()]))
        np.savez(file, values=torch.cat(columns, dim=-1).numpy())
    with np.load(file) as arrays:
        return np.asarray(arrays["values"])


def k_asked(states: list[Path], conditions: Conditions, cache: Path) -> str:
    """Return the table of K asked, at the SNRs of the objective and all K together."""
    scene, search = conditions.scene, search_grid(conditions.scene)
    most, parts = scene.max_sources, []
    for state in states:
        music = covariance_localiser(loaded(state, scene), scene)
        parts.append(
            with_k_asked(
                f"{state.stem}+judged",
                lambda s, music=music: likeliest_number(s, music, search, most),
                refined(music, scene, how="judged"),
                conditions,
                cache,
            )
        )
    ml = with_k_asked(
        REFERENCE,
        build_source_counter(REFERENCE, scene),
        build_localiser(REFERENCE, scene),
        conditions,
        cache,
    )
    rows = {REFERENCE: ml, f"{LARGE}+judged": np.mean(parts, axis=0)}
    lines = ["| estimator | K right | GOSPA |", "|---|---|---|"]
    for name, values in rows.items():
        lines.append(f"| {name} | {' | '.join(shown(bootstrap_mean(v)) for v in values)} |")
    gaps = [paired_difference(*pair) for pair in zip(*reversed(rows.values()), strict=True)]
    return "\n".join([*lines, f"| difference | {' | '.join(shown(g, '+') for g in gaps)} |"])


def against_ml(rows: dict[str, Scores], conditions: Conditions) -> str:
    """Return the table of the objective: all K together, and each."""
    counts = sorted({count for _, count in conditions.points()})
    heads = ["estimator", "all K", *(f"K = {count}" for count in counts), "ms/scene"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    choices = [None, *((count,) for count in counts)]
    for name, mine in rows.items():
        cells = [
            shown(bootstrap_mean(mine.per_scene("capped_error", OBJECTIVE_SNR_DB, chosen)))
            for chosen in choices
        ]
        lines.append(f"| {name} | {' | '.join(cells)} | {float(mine.milliseconds):.1f} |")
    pairs = [(f"{LARGE}+{how}", REFERENCE) for how in HOW]
    pairs += [(f"{LARGE}+judged", f"{BEGUN}+judged"), (f"{BEGUN}+judged", REFERENCE)]
    for one, other in pairs:
        cells = [
            shown(difference(rows[one], rows[other], OBJECTIVE_SNR_DB, *(chosen or ())), "+")
            for chosen in choices
        ]
        lines.append(f"| {one} - {other} | {' | '.join(cells)} | |")
    return "\n".join(lines)


def everywhere(rows: dict[str, Scores]) -> str:
    """Return the table of all SNRs, all K together."""
    final = f"{LARGE}+judged"
    heads = ["SNR/dB", *rows, f"{final} - {WEAK}"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for snr in SNR_DB:
        cells = [
            shown(bootstrap_mean(mine.per_scene("capped_error", (snr,)))) for mine in rows.values()
        ]
        gap = shown(difference(rows[final], rows[WEAK], (snr,)), "+")
        lines.append(f"| {snr:g} | {' | '.join(cells)} | {gap} |")
    return "\n".join(lines)


def main() -> None:
    """Train both stages, score them, print the tables, and write them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--small-epochs", type=int, default=16, help="of 50 steps of 64 scenes")
    parser.add_argument("--small-stop", type=int, help="epochs that are trained; default: all")
    parser.add_argument("--epochs", type=int, default=16, help="of 50 steps on the large panel")
    parser.add_argument("--batch", type=int, default=32, help="scenes of a step there")
    parser.add_argument("--rate", type=float, default=5e-3, help="learning rate there")
    parser.add_argument("--scenes", type=int, default=64, help="per K at -5 and 0 dB")
    parser.add_argument("--few", type=int, default=32, help="per SNR and K at all SNRs")
    parser.add_argument("--cache", type=Path, default=FOLDER, help="folder of what is kept")
    parser.add_argument("--only", choices=("train", "classical"), help="and print nothing")
    parser.add_argument("--write", action="store_true", help=f"the tables into {DOCUMENT}")
    args = parser.parse_args()
    args.small_stop = args.small_stop or args.small_epochs
    args.cache.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    scene = TrainConfig.from_params(FULL_SCENE).scene
    objective = Conditions(scene, FRESH_SEED, OBJECTIVE_SNR_DB, args.scenes)
    everything = replace(objective, snr_db=SNR_DB, num_scenes=args.few)
    if args.only == "classical":
        scored({}, (REFERENCE, WEAK), objective, args.cache)
        scored({}, (WEAK,), everything, args.cache)
        return
    stages = [both_stages(args, seed) for seed in args.seeds]
    if args.only:
        return
    files = {BEGUN: [made[0] for made, _ in stages], LARGE: [made[1] for made, _ in stages]}
    rows = scored(files, (REFERENCE, WEAK), objective, args.cache)
    after = scored({LARGE: files[LARGE]}, (WEAK,), everything, args.cache)
    seconds = [sum(column) / len(stages) for column in zip(*(s for _, s in stages), strict=True)]
    about = (
        f"`python benchmarks/curriculum.py {shlex.join(sys.argv[1:])}`; capped error, training "
        f"seeds {', '.join(map(str, args.seeds))}; {seconds[0]:.0f} CPU-s on the small panel and "
        f"{seconds[1]:.0f} on the large one"
    )
    text = "\n\n".join(
        [
            about,
            f"-5 and 0 dB, {args.scenes} scenes for each SNR and K:",
            against_ml(rows, objective),
            "The same scenes, K asked:",
            k_asked(files[LARGE], objective, args.cache),
            f"All K, {args.few} scenes for each SNR and K:",
            everywhere(after),
        ]
    )
    print(text)
    if args.write:
        write_tables(DOCUMENT, {"curriculum": text})


if __name__ == "__main__":
    main()
