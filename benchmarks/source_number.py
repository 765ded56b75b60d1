"""The number of sources, by every rule: confusion per SNR, and what it costs.

    python benchmarks/source_number.py [--scenes 128] [--noise 128] [--model RUN]
        [--exact 64] [--write]

Scenes of the `local` law of noise alone, of one and of two sources; noise alone, which has no SNR,
is of other scenes at every one. Rules: the widest relative eigengap and the evidence of the fits
that scoring reaches (`likeliest_number`), on the LMMSE back-projection and on a network's
covariance (--model), and P(K) of the posterior. `exact` is another sampler of the same posterior
(`sample_posterior`: 4,096 places or pairs drawn one by one, in ten times as much time), on the
first so many scenes with sources of every SNR and K; differences to it are paired. GOSPA of the
posterior with K asked and told, and the error of its confidence, follow. Intervals are 95 %,
times CPU time on one thread. With --write the tables go into docs/network.md at
<!-- source number --> and <!-- source number, worth -->.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

from trained import LOCAL_SCENE  # isort: skip  (sets threads)

import numpy as np
import torch
from documents import write_tables
from torch import Tensor

from trainer.config import TrainConfig
from trainer.covariance import Covariance, lmmse, sample_covariance
from trainer.estimation import (
    covariance_localiser,
    estimate_num_sources,
    likeliest_number,
)
from trainer.evaluation import gospa, match, near_a_source, posterior_readout
from trainer.evaluation.confidence import calibration_error
from trainer.intervals import bootstrap_mean, paired_difference, wilson_share
from trainer.posterior import effective_draws, law_of_places, sample_posterior
from trainer.posterior.point_sampler import PointSampler
from trainer.scenes import EvalScenes, Scenes, search_grid
from trainer.training import load_model, resolve_device

SCENE = TrainConfig.from_params(LOCAL_SCENE).scene
SEED = 17_000_003
SNR_DB = (-10.0, -5.0, 0.0, 4.0)
COUNTS = (0, 1, 2)
CHUNK, EXACT_SEED = 8, 7
"""Scenes that `exact` samples at once, and the seed of the first."""
DOCUMENT = Path("docs/network.md")
Rule = Callable[[Scenes], Tensor]


def rules(model: Path | None) -> dict[str, Rule]:
    """Return the rules that choose K on a covariance, by name."""
    covariances: dict[str, Callable[[Scenes], Covariance]] = {
        "lmmse": lambda scenes: sample_covariance(lmmse(scenes))
    }
    if model is not None:
        covariances["network"] = load_model(model, resolve_device("cpu")).network
    search, found = search_grid(SCENE), {}
    for name, covariance in covariances.items():
        music = covariance_localiser(covariance, SCENE)
        found[f"{name}, eigengap"] = lambda x, c=covariance: estimate_num_sources(
            c(x), x.num_snapshots, SCENE.max_sources
        )
        found[f"{name}, evidence"] = lambda x, m=music: likeliest_number(
            x, m, search, SCENE.max_sources
        )
    return found


def exact_number(scenes: Scenes) -> tuple[Tensor, Tensor]:
    """Return the likeliest K by `sample_posterior`, and the least effective draws, [B] each."""
    law, numbers, worth = law_of_places(SCENE), [], []
    for first in range(0, scenes.batch_size, CHUNK):
        part = scenes.take(slice(first, first + CHUNK))
        generator = torch.Generator().manual_seed(EXACT_SEED + first)
        drawn = [sample_posterior(part, law, k, generator) for k in COUNTS[1:]]
        evidence = [PointSampler(part, SCENE).nothing()]
        evidence += [each.log_evidence["blind"] for each in drawn]
        numbers.append(torch.stack(evidence, dim=-1).argmax(-1))
        draws = [effective_draws(each.log_weights["blind"]) for each in drawn]
        worth.append(torch.stack(draws).amin(0))
    return torch.cat(numbers), torch.cat(worth)


def confusion_row(name: str, where: str, said: dict[int, np.ndarray]) -> str:
    """Return the shares of K = 0, 1, 2 said for every true K."""
    cells = [
        " ".join(f"{np.mean(said[true] == k):.2f}" for k in COUNTS) if true in said else ""
        for true in COUNTS
    ]
    return f"| {name} | {where} | {' | '.join(cells)} |"


def right_of(said: dict[tuple[float, int], np.ndarray]) -> np.ndarray:
    """Return 1 for every scene with sources whose K is right, else 0."""
    return np.concatenate([values == k for (_, k), values in said.items() if k]).astype(float)


def summary_row(name: str, said: dict[tuple[float, int], np.ndarray]) -> str:
    """Return the share right of K = 1, 2, and of noise alone called a source."""
    right = right_of(said)
    alarms = [values > 0 for (_, k), values in said.items() if not k]
    cells = [right, np.concatenate(alarms)] if alarms else [right]
    shares = [wilson_share(float(x.mean()), len(x)) for x in cells]
    return f"| {name} | {' | '.join(f'{c} n {c.n}' for c in shares)} |" + " |" * (not alarms)


def main() -> None:
    """Print all tables, and write them with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=128, help="per SNR and K = 1, 2")
    parser.add_argument("--noise", type=int, default=128, help="scenes of noise alone per SNR")
    parser.add_argument("--exact", type=int, default=0, help="scenes of `exact`")
    parser.add_argument("--model", type=Path, help="run or model folder of a network")
    parser.add_argument("--write", action="store_true", help=f"the tables into {DOCUMENT}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    by_rule: dict[str, dict[tuple[float, int], np.ndarray]] = {}
    worth: dict[str, list[np.ndarray]] = {"told": [], "asked": [], "difference": []}
    confidence: dict[str, list[Tensor]] = {"told": [], "asked": []}
    hits: dict[str, list[Tensor]] = {"told": [], "asked": []}
    spent: dict[tuple[str, int], list[float]] = {}
    effective: list[Tensor] = []
    with torch.no_grad():
        for number, snr_db in enumerate(SNR_DB):
            for count in COUNTS:
                size = args.scenes if count else args.noise
                first = 0 if count else number * size
                scenes = EvalScenes(SCENE, SEED).batch(
                    range(first, first + size), snr_db=snr_db, num_sources=count
                )
                for name, rule in rules(args.model).items():
                    by_rule.setdefault(name, {})[snr_db, count] = rule(scenes).numpy()
                given = scenes.sources.num_sources
                reads = {}
                for how, told in (("told", given), ("asked", None)):
                    started = time.process_time()
                    reads[how] = posterior_readout(scenes, told, SCENE)
                    milliseconds = 1e3 * (time.process_time() - started) / size
                    spent.setdefault((how, count), []).append(milliseconds)
                said = reads["asked"].num_sources.numpy()
                by_rule.setdefault("posterior", {})[snr_db, count] = said
                if args.exact and count:
                    exact, draws = exact_number(scenes.take(slice(0, args.exact)))
                    by_rule.setdefault("exact", {})[snr_db, count] = exact.numpy()
                    part = by_rule.setdefault("posterior, of these", {})
                    part[snr_db, count] = said[: args.exact]
                    effective.append(draws)
                for how, read in reads.items():
                    found = read.estimates(SCENE)
                    confidence[how].append(read.confidence[read.active])
                    hits[how].append(near_a_source(found, scenes)[read.active])
                    if count and snr_db == 0.0:
                        worth[how].append(gospa(match(found, scenes.sources)).numpy())
    lines = ["| rule | SNR | K = 0: said 0 1 2 | K = 1 | K = 2 |", "|---|---|---|---|---|"]
    for name, points in by_rule.items():
        for snr_db in SNR_DB:
            said = {k: points[snr_db, k] for k in COUNTS if (snr_db, k) in points}
            lines.append(confusion_row(name, f"{snr_db:g} dB", said))
    totals = ["| rule | right, K = 1 and 2 | noise alone called a source |", "|---|---|---|"]
    totals += [summary_row(name, points) for name, points in by_rule.items()]
    cost = np.concatenate(worth["asked"]) - np.concatenate(worth["told"])
    text = [f"GOSPA at 0 dB, K asked minus told: {bootstrap_mean(cost)}, n {len(cost)}."]
    for how in confidence:
        said, right = torch.cat(confidence[how]), torch.cat(hits[how])
        off = calibration_error(said, right)
        text.append(f"Expected calibration error, K {how}: {off:.3f}, {len(said)} estimates.")
    for how in confidence:
        told = ", ".join(
            f"{np.mean(spent[how, k]):.0f} for K = {k}" for k in COUNTS[how == "told" :]
        )
        text.append(f"Milliseconds a scene, K {how}: {told}.")
    if args.exact:
        right = {name: right_of(by_rule[name]) for name in ("posterior, of these", "exact")}
        gap, worths = paired_difference(*right.values()), torch.cat(effective)
        text.append(
            f"Right K of the posterior minus `exact`: {gap}, n {gap.n}; effective draws of "
            f"`exact` in the median {worths.median():.0f}, least {worths.min():.0f}."
        )
    print("\n".join([*lines, "", *totals, "", *text]))
    if args.write:
        command = f"`{shlex.join(['python', 'benchmarks/source_number.py', *sys.argv[1:]])}`"
        tables = {"source number": f"{command}\n\n" + "\n".join(lines)}
        tables["source number, worth"] = "\n".join([*totals, "", *text])
        write_tables(DOCUMENT, tables)


if __name__ == "__main__":
    main()
