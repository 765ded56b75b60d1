"""One network from -15 to 20 dB, against ML, today's classical methods and a network of low SNRs.

    python benchmarks/every_snr.py [--seeds 0 1 2] [--epochs 10] [--scenes 256] [--cache FOLDER]
        [--snr-db -10 -5] [--num-sources 1] [--network unrolled:4] [--write]

Both networks are of width 16 and have the budget of the `local` preset. One, `unrolled:2` unless
--network names another, is trained as the presets train it (`spaces.presets.EVERY_SNR`: -15 to
20 dB, a noise floor) and judged by the likelihood, the other, `unrolled:2`, at -10 to 4 dB
without a floor, with Fisher scoring always.
`posterior` is the readout that needs none.
Scenes are fresh, the same for all; K is told. A network's errors are averaged over its training
seeds, scene by scene, before anything is compared; intervals are 95 % bootstrap over scenes.

Trainings and scores are kept in --cache, so that an interrupted run goes on. With --write the
tables go into docs/network.md at <!-- every SNR --> and <!-- every SNR judged -->; both of some
points only, or of another --network, to <!-- every SNR, others -->.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from trained import FOLDER, Scores, config_of, place, scores, trained  # isort: skip  (sets threads)

import numpy as np
import torch
from documents import write_tables
from paired import DOCUMENT, REFERENCE, difference, mean_of, shown

from spaces.blocks import NOISE_FLOOR
from spaces.presets import EVERY_SNR
from trainer.config import POSTERIOR_NAME, TrainConfig
from trainer.estimation import ORIGINS, Estimates, Localiser, covariance_localiser, refined
from trainer.evaluation import Conditions, classical_estimator, posterior_readout
from trainer.intervals import bootstrap_mean
from trainer.scenes import Scenes

NETWORK = "unrolled:2"
SNR_DB = (-15.0, -10.0, -5.0, 0.0, 5.0, 10.0, 15.0, 20.0)
COUNTS = (1, 2)
FRESH_SEED = 17_000_003
"""Of the scenes: nothing was chosen or tuned on them."""
BACK_PROJECTIONS = tuple(
    f"lmmse_{estimator}{scoring}"
    for estimator in ("music", "beamformer")
    for scoring in ("", "+scoring")
)
LOW, HIGH = 0.005, 0.01
"""What a judged estimate may be above the best known up to 5 dB, and above ML beyond."""


class Bench:
    """Scores of estimators, one file per estimator, SNR and K."""

    def __init__(
        self, folder: Path, num_scenes: int, snr_db: Sequence[float], counts: Sequence[int]
    ) -> None:
        self.folder, self.num_scenes = folder, num_scenes
        self.snr_db, self.counts = tuple(snr_db), tuple(counts)
        self.scene = config_of("local", "unrolled:2", 0, 1, "cpu").scene

    def points(self) -> list[Conditions]:
        """Return the conditions of every SNR and K."""
        return [
            Conditions(self.scene, FRESH_SEED, (snr,), self.num_scenes, num_sources=(count,))
            for snr in self.snr_db
            for count in self.counts
        ]

    def classical(self, name: str) -> list[Scores]:
        """Return the scores of a classical method at every point."""
        own = {POSTERIOR_NAME: self.posterior}
        estimate = own.get(name) or classical_estimator(name, self.scene)
        found = [scores(name, estimate, point, self.folder) for point in self.points()]
        _say(f"scored {name}")
        return found

    def posterior(self, scenes: Scenes) -> Estimates:
        """Return the estimates of the readout `posterior`, K told."""
        read = posterior_readout(scenes, scenes.sources.num_sources, self.scene)
        return read.estimates(self.scene)

    def network(self, config: TrainConfig, how: str) -> dict[str, list[Scores]]:
        """Return the scores of a network by MUSIC, and with a refinement; train it first."""
        made = trained(config, "cpu", self.folder)[0]
        _say(f"trained {config.digest}")
        names = config.digest, f"{config.digest}+{how}"
        locate = covariance_localiser(made, self.scene)
        found: dict[str, list[Scores]] = {"": [], f"+{how}": []}
        for point in self.points():
            places: list[Estimates] = []
            refine = refined(lambda *_, places=places: places.pop(0), self.scene, how=how)
            origins: list[torch.Tensor] = []

            def by_music(scenes: Scenes, places: list[Estimates] = places) -> Estimates:
                places.append(locate(scenes, scenes.sources.num_sources))
                return places[-1]

            def sharpened(
                scenes: Scenes,
                refine: Localiser = refine,
                origins: list[torch.Tensor] = origins,
            ) -> Estimates:
                result = refine(scenes, scenes.sources.num_sources)
                if result.origin is not None:
                    origins.append(result.origin)
                return result

            if not place(names[1], point, self.folder).exists():
                place(names[0], point, self.folder).unlink(missing_ok=True)
            music = scores(names[0], by_music, point, self.folder)
            second = scores(names[1], sharpened, point, self.folder)
            if origins:
                counts = torch.bincount(torch.cat(origins), minlength=len(ORIGINS))
                np.savez(self._origins(config, point), shares=(counts / counts.sum()).numpy())
            together = music.milliseconds + second.milliseconds
            found[""].append(music)
            found[f"+{how}"].append(replace(second, milliseconds=together))
        _say(f"scored {names[1]}")
        return found

    def shares(self, config: TrainConfig, point: Conditions) -> np.ndarray:
        """Return the share of scenes of each of `ORIGINS` that were judged at a point."""
        with np.load(self._origins(config, point)) as kept:
            shares: np.ndarray = kept["shares"]
        return shares

    def _origins(self, config: TrainConfig, point: Conditions) -> Path:
        return place(f"{config.digest} origins", point, self.folder)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Train, score, print both tables and the verdict, and write them with `--write`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=10, help="of 20 steps of 64 scenes")
    parser.add_argument("--scenes", type=int, default=256, help="per SNR and source number")
    parser.add_argument("--cache", type=Path, default=FOLDER, help="folder of what is kept")
    parser.add_argument("--snr-db", nargs="+", type=float, default=SNR_DB)
    parser.add_argument("--num-sources", nargs="+", type=int, default=COUNTS)
    parser.add_argument("--network", default=NETWORK, help="trained at every SNR")
    parser.add_argument("--only", choices=("classical", "networks"), help="score, print nothing")
    parser.add_argument("--write", action="store_true", help=f"the tables into {DOCUMENT}")
    args = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(args.cache, args.scenes, args.snr_db, args.num_sources)

    def configs(network: str, **more: object) -> list[TrainConfig]:
        return [config_of("local", network, s, args.epochs, "cpu", **more) for s in args.seeds]

    def over_seeds(name: str, trainings: list[TrainConfig], how: str) -> dict[str, list[Scores]]:
        parts = [bench.network(config, how) for config in trainings]
        kinds = {kind: zip(*(part[kind] for part in parts), strict=True) for kind in parts[0]}
        return {f"{name}{kind}": [mean_of(list(x)) for x in rows] for kind, rows in kinds.items()}

    every = configs(args.network, **EVERY_SNR, **{"network.noise_floor": NOISE_FLOOR})
    rows: dict[str, list[Scores]] = {}
    if args.only != "networks":
        names = REFERENCE, *BACK_PROJECTIONS, POSTERIOR_NAME
        rows |= {name: bench.classical(name) for name in names}
    if args.only != "classical":
        rows |= over_seeds("every SNR", every, "judged")
        rows |= over_seeds("low SNRs", configs(NETWORK), "scoring")
    if args.only:
        return
    about = (
        f"`{shlex.join(['python', 'benchmarks/every_snr.py', *sys.argv[1:]])}`; {args.scenes} "
        f"scenes for each SNR and K; {20 * args.epochs} steps of 64 scenes, training seeds "
        f"{', '.join(map(str, args.seeds))}"
    )
    first, second = errors(rows, bench), judged(rows, every, bench)
    print(f"{about}\n\n{first}\n\n{second}")
    if args.write:
        whole = bench.snr_db == SNR_DB and bench.counts == COUNTS and args.network == NETWORK
        tables = {"every SNR": f"{about}\n\n{first}", "every SNR judged": second}
        more = {"every SNR, others": f"{about}\n\n{first}\n\n{second}"}
        write_tables(DOCUMENT, tables if whole else more)


def errors(rows: dict[str, list[Scores]], bench: Bench) -> str:
    """Return the table of capped errors by SNR and K."""
    heads = ["capped error", "K", *(f"{snr:g} dB" for snr in bench.snr_db), "ms/scene"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for count in bench.counts:
        for name, found in rows.items():
            own = [x for x in found if x.num_sources[0] == count]
            cells = [f"{x.capped_error.mean():.3f}" for x in own]
            spent = np.mean([float(x.milliseconds) for x in own])
            lines.append(f"| {name} | {count} | {' | '.join(cells)} | {spent:.1f} |")
    return "\n".join(lines)


def judged(rows: dict[str, list[Scores]], configs: list[TrainConfig], bench: Bench) -> str:
    """Return the paired differences of the judged network at every point, and the verdict."""
    heads = ["SNR/dB", "K", "judged", "- best known", "- sml", "- best back-projection"]
    heads += ["MUSIC alone - lmmse_music", "posterior - judged", "covariance / scoring / search"]
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    above = []
    for at, point in enumerate(bench.points()):
        (snr,), (count,) = point.snr_db, point.num_sources or ()
        here = {name: found[at] for name, found in rows.items()}
        mine, music = here["every SNR+judged"], here["every SNR"]
        known = best(here, (REFERENCE, "low SNRs+scoring"))
        gaps = [
            difference(mine, each, (snr,), count)
            for each in (known, here[REFERENCE], best(here, BACK_PROJECTIONS))
        ]
        gaps.append(difference(music, here["lmmse_music"], (snr,), count))
        gaps.append(difference(here[POSTERIOR_NAME], mine, (snr,), count))
        met = gaps[0].mean <= LOW if snr <= 5 else gaps[1].mean <= HIGH
        if not (met and gaps[2].mean <= 0):
            above.append(f"{snr:g} dB, K = {count}")
        shares = np.mean([bench.shares(config, point) for config in configs], axis=0)
        cells = [f"{snr:g}", str(count), shown(bootstrap_mean(mine.capped_error))]
        cells += [shown(gap, "+") for gap in gaps]
        lines.append(f"| {' | '.join(cells)} | {' / '.join(f'{x:.2f}' for x in shares)} |")
    goal = (
        f"at most {LOW} above the best known up to 5 dB, {HIGH} above ML beyond, and never above"
    )
    lines += ["", f"Above the goal ({goal} a back-projection): {'; '.join(above) or 'nowhere'}."]
    return "\n".join(lines)


def best(here: dict[str, Scores], names: tuple[str, ...]) -> Scores:
    """Return the scores of least mean error among these."""
    return min((here[name] for name in names), key=lambda x: float(x.capped_error.mean()))


if __name__ == "__main__":
    main()
