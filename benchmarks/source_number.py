"""The number of sources, by every rule: confusion per SNR, and what it costs.

    python benchmarks/source_number.py [--scenes 96] [--model RUN] [--exact 24] [--write]

Scenes of the `local` law of noise alone, of one and of two sources. Rules: the widest relative
eigengap and the evidence of the fits that scoring reaches (`likeliest_number`), on the LMMSE
back-projection and on a network's covariance (--model), and P(K) of the posterior; `exact` is the
posterior of some of the scenes from three times as many points. GOSPA of the posterior with K
asked and told, and the error of its confidence, follow. Intervals are 95 %. With --write the
tables go into docs/network.md at <!-- source number --> and <!-- source number, worth -->.
"""

import argparse
import shlex
import sys
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
from trainer.intervals import bootstrap_mean, wilson_share
from trainer.posterior.point_sampler import PointSampler
from trainer.scenes import EvalScenes, Scenes, search_grid
from trainer.training import load_model, resolve_device

SCENE = TrainConfig.from_params(LOCAL_SCENE).scene
SEED = 17_000_003
SNR_DB = (-10.0, -5.0, 0.0, 4.0)
COUNTS = (0, 1, 2)
DOUBLES_SNR_DB = (0.0, 10.0, 20.0)
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


def exact_number(scenes: Scenes) -> Tensor:
    """Return the likeliest K from three times as many points, [B]."""
    parts = []
    for first in range(0, scenes.batch_size, 8):
        sampler = PointSampler(scenes.take(slice(first, first + 8)), SCENE)
        drawn = [sampler.sample(k, times=3).log_evidence for k in (1, 2)]
        parts.append(torch.stack([sampler.nothing(), *drawn], dim=-1).argmax(-1))
    return torch.cat(parts)


def confusion_row(name: str, where: str, said: dict[int, np.ndarray]) -> str:
    """Return the shares of K = 0, 1, 2 said for every true K."""
    cells = [
        " ".join(f"{np.mean(said[true] == k):.2f}" for k in COUNTS) if true in said else ""
        for true in COUNTS
    ]
    return f"| {name} | {where} | {' | '.join(cells)} |"


def summary_row(name: str, said: dict[tuple[float, int], np.ndarray]) -> str:
    """Return the share right of K = 1, 2, and of noise alone called a source."""
    right = np.concatenate([values == k for (_, k), values in said.items() if k])
    alarms = next(values > 0 for (_, k), values in said.items() if not k)  # at every SNR alike
    cells = [wilson_share(float(x.mean()), len(x)) for x in (right, alarms)]
    return f"| {name} | {' | '.join(f'{c} n {c.n}' for c in cells)} |"


def main() -> None:
    """Print all tables, and write them with `--write`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=96, help="per SNR and K")
    parser.add_argument("--exact", type=int, default=0, help="scenes sampled more finely")
    parser.add_argument("--model", type=Path, help="run or model folder of a network")
    parser.add_argument("--write", action="store_true", help=f"the tables into {DOCUMENT}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    by_rule: dict[str, dict[tuple[float, int], np.ndarray]] = {}
    worth: dict[str, list[np.ndarray]] = {"told": [], "asked": [], "difference": []}
    confidence: dict[str, list[Tensor]] = {"told": [], "asked": []}
    hits: dict[str, list[Tensor]] = {"told": [], "asked": []}
    with torch.no_grad():
        for snr_db in SNR_DB:
            for count in COUNTS:
                scenes = EvalScenes(SCENE, SEED).batch(
                    range(args.scenes), snr_db=snr_db, num_sources=count
                )
                for name, rule in rules(args.model).items():
                    by_rule.setdefault(name, {})[snr_db, count] = rule(scenes).numpy()
                given = scenes.sources.num_sources
                reads = {"asked": posterior_readout(scenes, None, SCENE)}
                reads["told"] = posterior_readout(scenes, given, SCENE)
                said = reads["asked"].num_sources.numpy()
                by_rule.setdefault("posterior", {})[snr_db, count] = said
                if args.exact:
                    some = scenes.take(slice(0, args.exact))
                    by_rule.setdefault("exact", {})[snr_db, count] = exact_number(some).numpy()
                    part = by_rule.setdefault("posterior, of these", {})
                    part[snr_db, count] = said[: args.exact]
                for how, read in reads.items():
                    found = read.estimates(SCENE)
                    confidence[how].append(read.confidence[read.active])
                    hits[how].append(near_a_source(found, scenes)[read.active])
                    if count and snr_db == 0.0:
                        worth[how].append(gospa(match(found, scenes.sources)).numpy())
    lines = ["| rule | SNR | K = 0: said 0 1 2 | K = 1 | K = 2 |", "|---|---|---|---|---|"]
    for name, points in by_rule.items():
        for snr_db in SNR_DB:
            said = {k: points[snr_db, k] for k in COUNTS}
            lines.append(confusion_row(name, f"{snr_db:g} dB", said))
    totals = ["| rule | right, K = 1 and 2 | noise alone called a source |", "|---|---|---|"]
    totals += [summary_row(name, points) for name, points in by_rule.items()]
    cost = np.concatenate(worth["asked"]) - np.concatenate(worth["told"])
    text = [f"GOSPA at 0 dB, K asked minus told: {bootstrap_mean(cost)}, n {len(cost)}."]
    for how in confidence:
        said, right = torch.cat(confidence[how]), torch.cat(hits[how])
        off = calibration_error(said, right)
        text.append(f"Expected calibration error, K {how}: {off:.3f}, {len(said)} estimates.")
    text += [doubles(args.scenes)]
    print("\n".join([*lines, "", *totals, "", *text]))
    if args.write:
        command = f"`{shlex.join(['python', 'benchmarks/source_number.py', *sys.argv[1:]])}`"
        tables = {"source number": f"{command}\n\n" + "\n".join(lines)}
        tables["source number, worth"] = "\n".join([*totals, "", *text])
        write_tables(DOCUMENT, tables)


def doubles(size: int) -> str:
    """Return how often both estimates of a lone source told to be two are resolved."""
    shares = []
    for snr_db in DOUBLES_SNR_DB:
        scenes = EvalScenes(SCENE, SEED).batch(range(size), snr_db=snr_db, num_sources=1)
        two = torch.full((size,), 2)
        found = posterior_readout(scenes, two, SCENE).estimates(SCENE)
        both = (found.resolved & found.active).sum(-1) == 2
        shares.append(f"{wilson_share(float(both.double().mean()), size)} at {snr_db:g} dB")
    return f"Lone sources told to be two, both resolved: {', '.join(shares)}, n {size} each."


if __name__ == "__main__":
    main()
