"""Scenes per second of the trainer against a plain NumPy loop over scenes, in the same run.

    python benchmarks/throughput.py [--scene full|local] [--device cpu|cuda] [--no-write]

Rounds alternate between the contestants, so that load from elsewhere meets both; printed are the
median over rounds, its range, and the speed-up. On a CPU everything runs on one thread. The table
goes into docs/baselines.md.

Scoring compares at equal accuracy: the plain MUSIC scans the coarsest of several grids whose
capped error of one source comes within 5 % of the trainer's, which refines off a coarse one. With
two sources it scans the same grid; there peaks of one spectrum find less than deflation does, on
whatever grid. Both kinds of maximum likelihood refine. All errors are printed.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

# before NumPy is loaded: its BLAS reads them once
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
import plain_estimators
import plain_numpy
import torch
from documents import write_tables

from spaces.presets import FULL_SCENE, LOCAL_SCENE
from trainer.config import SceneConfig, TrainConfig
from trainer.covariance import lmmse, sample_covariance
from trainer.estimation import Estimates, music, sml
from trainer.evaluation import CHUNK, capped_error, match
from trainer.provenance import gpus
from trainer.scenes import POINTS_PER_BEAM, EvalScenes, search_grid, simulate

SCENES = {"full": FULL_SCENE, "local": LOCAL_SCENE}
SNR_DB = 10.0
"""Above the threshold of every method, where errors are small and a grid has to be fine."""
PLAIN_SCENES = 48
"""Scenes that the plain loop takes in turn, and on which accuracies are compared."""
PLAIN_DENSITIES = ((6.0, 1), (8.0, 2), (12.0, 3), (16.0, 4), (20.0, 4))
"""Grids that the plain MUSIC may need: points per beam, and range planes over the trainer's."""
SAME_ACCURACY = 0.05
DOCS = Path(__file__).parent.parent / "docs" / "baselines.md"
PLACE_AND_POWER = ("azimuth", "elevation", "range_m", "power", "active")


@dataclass(frozen=True)
class Contest:
    """One task done by several contestants.

    Attributes:
        task: what is done.
        note: how accurately, where that is a question.
        plain: name of the contestant that the others are compared with.
        contestants: does the task once and returns the number of scenes it was done for.
    """

    task: str
    note: str
    plain: str
    contestants: dict[str, Callable[[], int]]


def generation(config: SceneConfig, device: torch.device, batch_size: int) -> Contest:
    """Return the contest of drawing scenes: new ones from one generator, fixed ones by their
    numbers."""
    numpy_generator = np.random.default_rng(0)
    generator = torch.Generator(device).manual_seed(0)
    fixed = EvalScenes(config, 0)

    def plain() -> int:
        for _ in range(64):
            plain_numpy.draw_scene(config, numpy_generator, SNR_DB)
        return 64

    def simulated() -> int:
        simulate(config, batch_size, snr_db=SNR_DB, generator=generator, device=device)
        return batch_size

    def numbered() -> int:
        fixed.batch(range(256), snr_db=SNR_DB, device=device)
        return 256

    return Contest(
        "generate",
        "",
        "plain NumPy loop",
        {"plain NumPy loop": plain, "simulate": simulated, "EvalScenes": numbered},
    )


class Scoring:
    """Fixed scenes for both: batched on a device, and as a list for the plain loop."""

    def __init__(self, config: SceneConfig, device: torch.device, count: int, sources: int):
        self.config, self.count, self.sources = config, count, sources
        ids, fixed = range(count), EvalScenes(config, 0)
        self.batch = fixed.batch(ids, snr_db=SNR_DB, num_sources=sources, device=device)
        self.search = search_grid(config, torch.float32, str(device))
        host = self.batch.to(device="cpu", dtype=torch.complex128)
        truth = host.sources
        self.plain = [
            plain_numpy.PlainScene(
                *(x[i].numpy() for x in (host.snapshots, host.channel, host.codes)),
                *(x[i, :sources].numpy() for x in (truth.azimuth, truth.elevation, truth.range_m)),
                host.noise_variance[i].item(),
            )
            for i in range(min(count, PLAIN_SCENES))
        ]
        self.turn = 0

    def next_plain(self) -> plain_numpy.PlainScene:
        """The plain scenes in turn."""
        self.turn += 1
        return self.plain[self.turn % len(self.plain)]

    def error(self, estimates: Estimates) -> float:
        """Mean capped error over the scenes that the plain loop has too."""
        errors = match(estimates, self.batch.sources)
        return float(capped_error(errors)[: len(self.plain)].mean())

    def plain_error(self, found: list[np.ndarray]) -> float:
        """The same for what the plain loop found, [K, 3] per scene."""
        places = torch.from_numpy(np.stack(found)).float()
        active = torch.ones(places.shape[:2], dtype=torch.bool)
        truth = self.batch.to(device="cpu").sources
        kept = {name: getattr(truth, name)[: len(found)] for name in PLACE_AND_POWER}
        errors = match(Estimates(*places.unbind(-1), active, active), replace(truth, **kept))
        return float(capped_error(errors).mean())


def fine_enough(config: SceneConfig, device: torch.device) -> plain_estimators.PlainGrid:
    """Return the coarsest plain grid on which one source is located as well as the trainer does.

    Raises:
        ValueError: if none of `PLAIN_DENSITIES` is dense enough.
    """
    both = Scoring(config, device, PLAIN_SCENES, sources=1)
    counts = both.batch.sources.num_sources
    aim = both.error(music(sample_covariance(lmmse(both.batch)), counts, both.search))
    covariances = [plain_estimators.lmmse_covariance(scene) for scene in both.plain]
    for density, planes in PLAIN_DENSITIES:
        grid = plain_estimators.make_grid(config, density, planes * both.search.shape[0])
        error = both.plain_error([plain_estimators.music(r, 1, grid) for r in covariances])
        print(f"plain grid of {density:g} points per beam: {error:.4f}, to reach: {aim:.4f}")
        if error <= (1 + SAME_ACCURACY) * aim:
            return grid
    raise ValueError(
        f"a plain grid must come within {SAME_ACCURACY:.0%} of {aim:.4f}, but {density:g} points "
        f"per beam give {error:.4f}. Add a denser one."
    )


def music_scoring(
    config: SceneConfig,
    device: torch.device,
    batch_size: int,
    sources: int,
    grid: plain_estimators.PlainGrid,
) -> Contest:
    """Return the contest of LMMSE back-projection and MUSIC."""
    both = Scoring(config, device, batch_size, sources)
    counts = both.batch.sources.num_sources

    def batched() -> Estimates:
        return music(sample_covariance(lmmse(both.batch)), counts, both.search)

    def plain(scene: plain_numpy.PlainScene) -> np.ndarray:
        return plain_estimators.music(plain_estimators.lmmse_covariance(scene), sources, grid)

    return _contest(f"score: LMMSE, MUSIC, K = {sources}", both, batched, plain)


def likelihood_scoring(config: SceneConfig, device: torch.device, batch_size: int) -> Contest:
    """Return the contest of stochastic maximum likelihood, one source."""
    both = Scoring(config, device, batch_size, sources=1)
    counts = both.batch.sources.num_sources
    grid = plain_estimators.make_grid(config, POINTS_PER_BEAM, both.search.shape[0])

    def batched() -> Estimates:
        return sml(both.batch, counts, both.search)

    def plain(scene: plain_numpy.PlainScene) -> np.ndarray:
        return plain_estimators.single_source_likelihood(config, scene, grid)

    return _contest("score: ML, K = 1", both, batched, plain)


def _contest(
    task: str,
    both: Scoring,
    batched: Callable[[], Estimates],
    plain: Callable[[plain_numpy.PlainScene], np.ndarray],
) -> Contest:
    def batch() -> int:
        batched()
        return both.count

    def loop() -> int:
        plain(both.next_plain())
        return 1

    note = (
        f"{task}: capped error {both.error(batched()):.4f}, "
        f"plain {both.plain_error([plain(scene) for scene in both.plain]):.4f} "
        f"({len(both.plain)} scenes at {SNR_DB:g} dB)"
    )
    return Contest(task, note, "plain NumPy loop", {"plain NumPy loop": loop, "batched": batch})


def scenes_per_second(work: Callable[[], int], device: torch.device, seconds: float) -> float:
    """Return a rate, measured for at least so long."""
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        done += work()
        if device.type == "cuda":
            torch.cuda.synchronize()
    return done / elapsed


def measure(contest: Contest, device: torch.device, rounds: int, seconds: float) -> list[str]:
    """Return table rows: rates of every contestant and their ratio to the plain one, round by
    round."""
    for work in contest.contestants.values():
        work()  # memory, kernels and tables are made once
    rates: dict[str, list[float]] = {name: [] for name in contest.contestants}
    for _ in range(rounds):
        for name, work in contest.contestants.items():
            rates[name].append(scenes_per_second(work, device, seconds))
    rows = []
    for name, values in rates.items():
        ratios = [v / p for v, p in zip(values, rates[contest.plain], strict=True)]
        rows.append(
            f"| {contest.task} | {name} | {statistics.median(values):,.0f} "
            f"[{min(values):,.0f}, {max(values):,.0f}] | {statistics.median(ratios):.1f} "
            f"[{min(ratios):.1f}, {max(ratios):.1f}] |"
        )
    return rows


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", choices=SCENES, default="full")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help="default: cuda where there is one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="per contestant and round")
    parser.add_argument("--no-write", action="store_true", help="leave docs/ as it is")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    config = TrainConfig.from_params(SCENES[options.scene]).scene
    on_gpu = device.type == "cuda"
    where = "; ".join(dict.fromkeys(gpus())) if on_gpu else "one CPU thread"  # with its driver
    grid = fine_enough(config, device)
    contests = [
        generation(config, device, batch_size=8192 if on_gpu else CHUNK),
        music_scoring(config, device, 2048 if on_gpu else CHUNK, 1, grid),
        music_scoring(config, device, 2048 if on_gpu else CHUNK, 2, grid),
        likelihood_scoring(config, device, batch_size=1024 if on_gpu else 16),
    ]
    sizes = (
        f"{config.num_horizontal}x{config.num_vertical} elements, {config.num_antennas} antennas, "
        f"{config.num_snapshots} snapshots, K in 1..{config.max_sources}"
    )
    versions = f"{where}, torch {torch.__version__}, NumPy {np.__version__}"
    points = " x ".join(map(str, grid.shape))
    rounds = f"median [range] of {options.rounds} rounds"
    lines = [
        f"{sizes}; {versions}; {rounds}; plain MUSIC on {points} points.",
        "",
        "| task | how | scenes/s | times the plain loop |",
        "|---|---|---|---|",
    ]
    for contest in contests:
        lines += measure(contest, device, options.rounds, options.seconds)
    lines += ["", *(f"- {contest.note}" for contest in contests if contest.note)]
    text = "\n".join(lines)
    print(text)
    if not options.no_write:
        write_tables(DOCS, {f"throughput {options.scene} {device.type}": text})


if __name__ == "__main__":
    main()
