"""Print what is vouched for where a source was not told, is outside the region, or moves.

    python benchmarks/further_source.py [--scenes 96] [--law 1024] [--write]
    python benchmarks/further_source.py --model RUN [--law 512] [--write]

Lone scenes of the `local` law by `sml`, K told, σ² not told, SNR evenly over 0 ... 20 dB; rows
count estimates. Sources outside are at least 6 degrees outside; one that moves does so in azimuth,
towards the middle, and its place is that half way. `vouched for` is as docs/localisation.md
defines it, without and with the tests for a further source and for places that change;
`right and withheld` the share of right estimates that these two alone withhold. Misreadings are
not tried. Then the false alarms of both, p < .01 and p < .001, on the law's scenes (--law for each
row).

With a model: its estimates with a confidence of .9 or more, and those of them that are `resolved`
by P >= .9, too; wrong are those more than 5 degrees off. Intervals are those of Clopper and
Pearson at 95 %.
"""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest import mock

from documents import write_tables

from trained import LOCAL_SCENE  # isort: skip  (sets threads)

import numpy as np
import torch
from misread import share
from torch import Tensor

from trainer.config import TrainConfig
from trainer.covariance import whiten
from trainer.estimation import Estimates, refined_music, score, sml
from trainer.evaluation import (
    confidence_features,
    constancy_p_value,
    near_a_source,
    place_probability,
)
from trainer.localisation import Localisation, vouch, vouched
from trainer.localisation.best_places import LEVEL
from trainer.localisation.goodness_of_fit import further_source, in_front
from trainer.localisation.vouching import CONSTANCY_LEVEL, LEAST_PROBABILITY
from trainer.scenes import EvalScenes, Scenes, respond, search_grid
from trainer.training import Model, load_model

PAGE = Path(__file__).parents[1] / "docs" / "localisation.md"
SEED = 77_000_001
BATCH_SIZE = 64
OUTSIDE_DEG = 6.0
LOCAL = TrainConfig.from_params(LOCAL_SCENE).scene


def law(
    size: int, count: int, low_db: float = 0.0, high_db: float = 20.0, **change: float
) -> Scenes:
    """Return scenes of the law, changed so, SNRs evenly between these."""
    scene = replace(LOCAL, **change, max_sources=count)
    snr_db = torch.linspace(low_db, high_db, size)
    scenes = EvalScenes(scene, SEED).batch(range(size), snr_db=snr_db, num_sources=count)
    return replace(scenes, noise_variance=torch.full_like(scenes.noise_variance, torch.nan))


def outside(size: int, axis: str, largest_deg: float) -> Scenes:
    """Return those of `size` scenes whose source is outside of the region along an axis."""
    scenes = law(size, 1, **{f"{axis}_max_deg": largest_deg})
    limit = math.radians(getattr(LOCAL, f"{axis}_max_deg") + OUTSIDE_DEG)
    return scenes.take((getattr(scenes.sources, axis)[:, 0].abs() > limit).nonzero().flatten())


def moving(size: int, angle_deg: float) -> Scenes:
    """Return scenes of one source that moves by so much in azimuth while snapshots are taken."""
    scenes, search = law(size, 1), search_grid(LOCAL)
    truth, length = scenes.sources, scenes.num_snapshots
    path = torch.stack([truth.azimuth, truth.elevation, 1 / truth.range_m], dim=-1)[:, :1]
    turned = -path[..., 0].sign() * math.radians(angle_deg)
    path = path.repeat(1, length, 1)
    path[..., 0] += turned * torch.linspace(0, 1, length)
    echoes = respond(scenes.channel, scenes.codes, search.response(path))
    echo = echoes.diagonal(dim1=1, dim2=3).mT  # of snapshot l, the place at l
    generator = torch.Generator().manual_seed(SEED)
    draw = torch.randn(size, length, 1, generator=generator, dtype=torch.cfloat)
    noise = torch.randn(*echo.shape, generator=generator, dtype=torch.cfloat)
    variance = echo.abs().square().mean((1, 2)) / 10 ** (scenes.snr_db / 10)
    truth = replace(truth, azimuth=truth.azimuth + turned / 2)
    snapshots = draw * echo + variance.sqrt()[:, None, None] * noise
    return replace(scenes, snapshots=snapshots, truth=truth)


def shuffled(size: int) -> Scenes:
    """Return scenes of one source whose codes are those of other snapshots, in random order."""
    scenes, generator = law(size, 1), torch.Generator().manual_seed(SEED)
    orders = [torch.randperm(scenes.num_snapshots, generator=generator) for _ in range(size)]
    order = torch.stack(orders).unsqueeze(-1).expand_as(scenes.codes)
    return replace(scenes, codes=scenes.codes.gather(1, order))


CASES: dict[str, tuple[Callable[[int], Scenes], int]] = {
    "one source": (lambda n: law(n, 1), 1),
    "two sources": (lambda n: law(n, 2), 2),
    "two sources, correlation .9": (lambda n: law(n, 2, source_correlation=0.9), 2),
    "elevation beyond 36°": (lambda n: outside(3 * n, "elevation", 80.0), 1),
    "azimuth beyond 66°": (lambda n: outside(3 * n, "azimuth", 85.0), 1),
    "moves by 20°": (lambda n: moving(n, 20.0), 1),
    "moves by 10°": (lambda n: moving(n, 10.0), 1),
    "two sources, told one": (lambda n: law(n, 2), 1),
    "three sources, told two": (lambda n: law(n, 3), 2),
    "codes in random order": (shuffled, 1),
}
"""Scenes by their number, and K told."""


def main() -> None:
    """Print the tables, and put them into the page."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--model", help="a run or model folder; none for the tables of `sml`")
    p.add_argument("--scenes", type=int, default=96, help="per case")
    p.add_argument("--law", type=int, default=1024, help="per row of the law")
    p.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    args = p.parse_args()
    if args.model:
        tables = {"sure networks": model_table(args.model, args.law)}
    else:
        tables = {
            "further source": cases_table(args.scenes),
            "further false alarms": alarms_table(args.law),
        }
    if args.write:
        write_tables(PAGE, tables)


def cases_table(size: int) -> str:
    """Return what is vouched for, without and with the test."""
    heads = ["scenes", "n", "wrong of all", "vouched for, not tested", "wrong of those"]
    heads += ["vouched for", "wrong of those", "right and withheld"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    print(*lines, sep="\n", flush=True)
    search = search_grid(LOCAL)
    for name, (draw, count) in CASES.items():
        every = draw(size)
        right, before, after = [], [], []
        for first in range(0, every.batch_size, BATCH_SIZE):
            part = every.take(slice(first, first + BATCH_SIZE))
            told = torch.full((part.batch_size,), count)
            found = sml(part, told, search)
            right.append(near_a_source(found, part)[found.active].numpy())
            after.append(of_active(vouch(part, found, told, LOCAL)))
            with (
                mock.patch("trainer.localisation.vouching.further_source", never),
                mock.patch("trainer.localisation.vouching.constancy_p_value", constant),
            ):
                before.append(of_active(vouch(part, found, told, LOCAL)))
        wrong, first_, then = ~np.concatenate(right), np.concatenate(before), np.concatenate(after)
        cells = [f"{len(wrong)}", share(wrong)]
        for each in (first_, then):
            cells += [f"{each.mean():.3f}", share(wrong[each]) if each.any() else "none"]
        lost = share((first_ & ~then)[~wrong]) if (~wrong).any() else "none"
        lines.append(f"| {name} | {' | '.join([*cells, lost])} |")
        print(lines[-1], flush=True)
    return "\n".join(lines)


def of_active(found: Localisation) -> np.ndarray:
    """Return which active estimates are vouched for."""
    return vouched(found)[found.active]


def never(scenes: Scenes, positions: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    """Return what the test says of scenes in which it sees nothing."""
    return torch.ones(scenes.batch_size, dtype=torch.float64), positions[:, 0]


def constant(scenes: Scenes, *_: object) -> Tensor:
    """Return p values of scenes in which nothing seems to move."""
    return torch.ones(scenes.batch_size, dtype=torch.float64)


def alarms_table(size: int) -> str:
    """Return how often a further source or a move is seen in the law's own scenes."""
    heads = ["SNR", "K", "n", "a further source", "places change"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    search, wide = search_grid(LOCAL), in_front(LOCAL, torch.device("cpu"))
    for low_db in (0.0, -10.0):
        for count in (1, 2):
            more, moved = [], []
            every = law(size, count, low_db)
            for first in range(0, size, BATCH_SIZE):
                part = every.take(slice(first, first + BATCH_SIZE))
                found = sml(part, part.sources.num_sources, search)
                data, places = whiten(part).to(torch.complex128), found.positions
                end, _ = score(data, places, found.active, search, steps=6)
                best = end.point[:, : 3 * count].unflatten(-1, (count, 3))
                more.append(further_source(part, best, found.active, wide)[0] < LEVEL)
                constancy = constancy_p_value(part, best, found.active, search)
                moved.append(constancy < CONSTANCY_LEVEL)
            cells = [share(torch.cat(each).numpy()) for each in (more, moved)]
            row = [f"{low_db:g} ... 20 dB", f"{count}", f"{size:,}", *cells]
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


def model_table(run: str, size: int) -> str:
    """Return how often sure estimates of a network are wrong, P asked or not."""
    heads = ["SNR", "K", "confidence >= .9", "wrong of those", "of these resolved"]
    heads += ["wrong of those", "right and not resolved"]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    model = load_model(run, torch.device("cpu"))
    for low_db, high_db in ((-10.0, 0.0), (0.0, 20.0)):
        for count in (1, 2):
            every = law(size, count, low_db, high_db)
            sure, probable, right = [], [], []
            for first in range(0, size, BATCH_SIZE):
                part = every.take(slice(first, first + BATCH_SIZE))
                found, confidence = locate(model, part)
                on = found.active
                sure.append((confidence >= LEAST_PROBABILITY)[on].numpy())
                probability = place_probability(part, found, search_grid(model.config.scene))
                probable.append((probability >= LEAST_PROBABILITY)[on].numpy())
                right.append(near_a_source(found, part)[on].numpy())
            one, also, good = (np.concatenate(x) for x in (sure, probable, right))
            both = one & also
            cells = [f"{one.sum()} of {len(one)}", share(~good[one]), f"{both.sum()}"]
            cells += [share(~good[both]), share(~also[one & good])]
            lines.append(f"| {low_db:g} ... {high_db:g} dB | {count} | {' | '.join(cells)} |")
            print(lines[-1], flush=True)
    return "\n".join(lines)


@torch.no_grad()
def locate(model: Model, scenes: Scenes) -> tuple[Estimates, Tensor]:
    """Return a model's estimates, K told, and their confidence [B, K]."""
    scene, count = model.config.scene, scenes.sources.num_sources
    covariance = model.network(scenes)
    found = refined_music(scenes, covariance, count, scene, model.config.evaluation.refinement)
    features = confidence_features(covariance, found, count, scene)
    return found, model.calibration.confidence(features, asked=False) * found.scored


if __name__ == "__main__":
    main()
