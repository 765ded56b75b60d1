"""Scenes per second of the trainer against a plain NumPy loop over scenes, in the same run.

    python benchmarks/throughput.py [--scene full|local] [--device cpu|cuda] [--rounds 7]

Rounds alternate between the contestants, so that load from elsewhere meets both; printed are the
median over rounds, its range, and the speed-up. On a CPU everything runs on one thread.
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

# before NumPy is loaded: its BLAS reads them once
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
import plain_numpy
import torch

from spaces.presets import FULL_SCENE, LOCAL_SCENE
from trainer.config import SceneConfig, TrainConfig
from trainer.scene import EvalScenes, simulate

SCENES = {"full": FULL_SCENE, "local": LOCAL_SCENE}
SNR_DB = 0.0


@dataclass(frozen=True)
class Contest:
    """One task done by several contestants.

    Attributes:
        task: what is done.
        plain: name of the contestant that the others are compared with.
        contestants: does the task once and returns the number of scenes it was done for.
    """

    task: str
    plain: str
    contestants: dict[str, Callable[[], int]]


def generation(config: SceneConfig, device: torch.device, batch_size: int) -> Contest:
    """Drawing scenes: new ones from one generator, fixed ones by their numbers."""
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
        "plain NumPy loop",
        {"plain NumPy loop": plain, "simulate": simulated, "EvalScenes": numbered},
    )


def scenes_per_second(work: Callable[[], int], device: torch.device, seconds: float) -> float:
    """Repeats the work for at least so long."""
    done, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        done += work()
        if device.type == "cuda":
            torch.cuda.synchronize()
    return done / elapsed


def measure(contest: Contest, device: torch.device, rounds: int, seconds: float) -> list[str]:
    """Table rows: rates of every contestant and their ratio to the plain one, round by round."""
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
    """Prints the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", choices=SCENES, default="full")
    default = "cuda" if torch.cuda.is_available() else "cpu"
    parser.add_argument("--device", default=default, help="default: cuda where there is one")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.5, help="per contestant and round")
    options = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(options.device)
    config = TrainConfig.from_params(SCENES[options.scene]).scene
    on_gpu = device.type == "cuda"
    where = torch.cuda.get_device_name(device) if on_gpu else "one CPU thread"
    print(
        f"{config.num_horizontal}x{config.num_vertical} elements, {config.num_antennas} antennas, "
        f"{config.num_snapshots} snapshots, K in 1..{config.max_sources}; {where}, "
        f"torch {torch.__version__}, NumPy {np.__version__}; median [range] of "
        f"{options.rounds} rounds\n"
    )
    print("| task | how | scenes/s | times the plain loop |")
    print("|---|---|---|---|")
    contests = [generation(config, device, batch_size=8192 if on_gpu else 128)]
    for contest in contests:
        for row in measure(contest, device, options.rounds, options.seconds):
            print(row, flush=True)


if __name__ == "__main__":
    main()
