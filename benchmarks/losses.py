"""Losses to train a network on, against the shipped one, covariance NMSE, in one run.

    python benchmarks/losses.py [--losses NAME ...] [--seeds 0 1 2] [--epochs 10] [--scenes 512]
        [--write NAME]

A network is trained with every loss (terms: `losses_terms`) from the same initial weights, on the
same scenes, by the same optimiser, and scored on fresh scenes with MUSIC, and with scoring after
that; K is told. Differences of capped error are from the network that NMSE trained, paired by
scene, training seeds averaged first; then those of each seed, where there are several. `its term`
is what the loss adds to NMSE, or puts in its place: its mean on scenes of the training's law under
the network that NMSE trained and under its own, and the share of scenes in which it is then still
above 0. On one thread; what is done is kept in runs/benchmark, so that a run that was interrupted
goes on. With --write the table goes into docs/network.md at <!-- NAME -->.
"""

import argparse
import hashlib
import shlex
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from trained import FOLDER, Scores, config_of, scores  # isort: skip  (sets threads)

import numpy as np
import torch
from documents import write_tables
from losses_terms import HINGES, Predicted, terms_of
from paired import (
    DOCUMENT,
    OBJECTIVE_SNR_DB,
    REFERENCE,
    add_flags,
    difference,
    mean_of,
    readouts,
    shown,
)
from torch import nn

from trainer.config import TrainConfig
from trainer.evaluation import Conditions, classical_estimator
from trainer.intervals import bootstrap_mean
from trainer.scenes import simulate
from trainer.training import CLIP_NORM, TrainingLoop

FRESH_SEED = 11_000_003
"""Of the scenes: not those of published accuracy, on which nothing is to be chosen."""
SNR_DB = (-10.0, -5.0, 0.0)
SNRS = {"-5, 0 dB": OBJECTIVE_SNR_DB, "-10 dB": (-10.0,)}
"""Over which errors are averaged."""
LAW_SCENES = 512
"""Scenes of the training's law on which terms are looked at."""
LOSSES: tuple[dict[str, float], ...] = (
    {"nmse": 1.0},
    {"map": 0.03},
    {"nmse": 1.0, "map": 0.03},
    {"unseen": 3.0},
    {"nmse": 1.0, "unseen": 3.0},
    {"likelihood": 5.0},
    {"nmse": 1.0, "likelihood": 5.0},
    {"capture": 1.0},
    {"nmse": 1.0, "capture": 1.0},
    {"leak": 0.03},
    {"nmse": 1.0, "leak": 0.03},
    {"nmse": 1.0, "gap": 0.3},
    {"nmse": 1.0, "ratio": 0.3},
    {"nmse": 1.0, "energy": 0.15},
)
"""Weights of terms: each makes the gradient of its term as long as NMSE's, .4 after 60 steps on
that, so that the term acts and clipping treats all alike."""


def name_of(weights: Mapping[str, float]) -> str:
    """Return a weighted sum of terms as text: `nmse + 0.1 gap`."""
    return " + ".join(term if w == 1 else f"{w:g} {term}" for term, w in weights.items())


def trained(config: TrainConfig, weights: Mapping[str, float]) -> tuple[nn.Module, str, float]:
    """Train a network on another loss; return it, a name for it, and its CPU seconds."""
    margins = {term: HINGES[term] for term in weights if term in HINGES}
    about = f"{config.digest} {sorted(weights.items())} {margins}"
    key = hashlib.sha256(about.encode()).hexdigest()[:16]
    file = FOLDER / f"loss-{key}.pt"
    # weights, scenes and schedule of the product
    training = TrainingLoop(config, torch.device("cpu"))
    if not file.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        terms, started = terms_of(config), time.process_time()
        for _ in range(config.epochs * config.steps_per_epoch):
            scenes = training.draw()
            training.optimizer.zero_grad(set_to_none=True)
            seen = Predicted.by(training.network, scenes)
            total = sum(w * terms[term](seen, scenes).mean() for term, w in weights.items())
            total.backward()
            nn.utils.clip_grad_norm_(
                training.network.parameters(), CLIP_NORM, error_if_nonfinite=True
            )
            training.optimizer.step()
            training.schedule.step()
        partial = file.with_suffix(".partial")
        seconds = time.process_time() - started
        torch.save({"network": training.network.state_dict(), "seconds": seconds}, partial)
        partial.rename(file)
    kept = torch.load(file)
    training.network.load_state_dict(kept["network"])
    return training.network.eval(), key, kept["seconds"]


class Run(NamedTuple):
    """A training and its scores, by readout; every term on scenes of the training's law."""

    weights: Mapping[str, float]
    scores: dict[str, Scores]
    terms: dict[str, np.ndarray]
    seconds: float


def run(config: TrainConfig, weights: Mapping[str, float], conditions: Conditions) -> Run:
    """Train and score, or read what was kept."""
    network, key, seconds = trained(config, weights)
    found = readouts(network, key, conditions)
    return Run(weights, found, looked_at(network, config), seconds)


@torch.no_grad()
def looked_at(network: nn.Module, config: TrainConfig) -> dict[str, np.ndarray]:
    """Return every term on the same scenes of the training's law, [scenes] each."""
    scenes = simulate(
        config.scene,
        LAW_SCENES,
        snr_db=(config.snr_min_db, config.snr_max_db),
        generator=torch.Generator().manual_seed(FRESH_SEED),
        device="cpu",
    )
    seen = Predicted.by(network, scenes)
    return {name: term(seen, scenes).numpy() for name, term in terms_of(config).items()}


def line(name: str, runs: list[Run], shipped: list[Run], reference: Scores) -> str:
    """Return one row of the table."""
    term = next((term for term in runs[0].weights if term != "nmse"), "nmse")
    nmse, before, after = (
        np.concatenate([run.terms[each] for run in some])
        for some, each in ((runs, "nmse"), (shipped, term), (runs, term))
    )
    acted = f"{before.mean():.3f} to {after.mean():.3f}, {(after > 0).mean():.2f}"
    cells = [name, f"{nmse.mean():.3f}", "" if term == "nmse" else acted]
    for how in ("", "+scoring"):
        mine, theirs = (mean_of([run.scores[how] for run in some]) for some in (runs, shipped))
        for snr_db in SNRS.values():
            if runs is shipped:
                cells.append(shown(bootstrap_mean(mine.per_scene("capped_error", snr_db))))
                continue
            cells.append(shown(difference(mine, theirs, snr_db), "+"))
            if len(runs) > 1:
                pairs = (
                    (a.scores[how], b.scores[how]) for a, b in zip(runs, shipped, strict=True)
                )
                each = [difference(*pair, snr_db).mean for pair in pairs]
                cells[-1] += f"; {', '.join(f'{mean:+.3f}' for mean in each)}"
    cells.append(shown(difference(mine, reference, OBJECTIVE_SNR_DB), "+"))
    return "| " + " | ".join([*cells, f"{np.mean([run.seconds for run in runs]):.0f}"]) + " |"


def main() -> None:
    """Train on every loss and print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = [name_of(weights) for weights in LOSSES]
    parser.add_argument("--losses", nargs="+", choices=names, default=names, metavar="NAME")
    add_flags(parser, epochs=10, scenes=512)
    parser.add_argument("--write", metavar="NAME", help=f"place of the table in {DOCUMENT}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {name_of(weights): weights for weights in LOSSES}
    chosen = {name: chosen[name] for name in dict.fromkeys(["nmse", *args.losses])}
    runs: dict[str, list[Run]] = {name: [] for name in chosen}
    for seed in args.seeds:  # seed by seed: what is interrupted has all losses of the first ones
        config = config_of("local", args.network, seed, args.epochs, "cpu")
        conditions = Conditions(config.scene, FRESH_SEED, SNR_DB, args.scenes)
        for name, weights in chosen.items():
            runs[name].append(run(config, weights, conditions))
            print(f"seed {seed}, {name}: {runs[name][-1].seconds:.0f} CPU-s", flush=True)
    reference = scores(REFERENCE, classical_estimator(REFERENCE, config.scene), conditions)
    ml = (shown(bootstrap_mean(reference.per_scene("capped_error", snr))) for snr in SNRS.values())
    command = shlex.join(["python", "benchmarks/losses.py", *sys.argv[1:]])
    heads = ["loss", "NMSE", "its term"]
    heads += [f"{how} {what}" for how in ("MUSIC", "+scoring") for what in SNRS]
    heads += ["+scoring - ML", "CPU-s"]
    about = (
        f"`{command}`; {args.scenes} scenes for each of {len(conditions.points())} conditions, "
        f"{args.epochs * config.steps_per_epoch} steps of {config.batch_size} scenes, training "
        f"seeds {args.seeds}; stochastic ML {' and '.join(ml)} at {' and '.join(SNRS)}"
    )
    lines = [
        about,
        "",
        "| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|",
        *(line(name, runs[name], runs["nmse"], reference) for name in chosen),
    ]
    print("\n" + "\n".join(lines))
    if args.write:
        write_tables(DOCUMENT, {args.write: "\n".join(lines)})


if __name__ == "__main__":
    main()
