"""Cost and error of products with the steering dictionary: its whole table against its factors.

    python benchmarks/products.py [--panels 6x6 8x8 12x12 16x16 24x24] [--table-gb 2] [--write]

Panels of N = 36 to 576 elements, with sources from 0.5 m (1 m for 16x16, 3 m for 24x24) to 10 m
(3 m for 6x6). A power map and a mixture of 16 scenes each, forward and backward, in single
precision on one thread: with the whole table where that takes at most `--table-gb`, and with its
factors.

    set-up    CPU time that it takes to compute the table or the factors
    memory    of the table or the factors
    time      CPU time of the four products, the least of five repetitions
    error     of power maps of 16 random R of rank 16 at 512 points, and of mixtures of 16 random
              sets of powers on 512 points, against double precision: the largest |error| / |exact|

Then, for tolerances of a compressed table of the 12x12 panel: the rows that are selected; the
least eigenvalue of R = a_g a_gᴴ of 400 points g (the mean is 1); and how many of 192 scenes, with
equal powers on 1, 2, 3 or 5 points, have a G_l R G_lᴴ + λ I that is not positive at λ = 1e-3.

The last lines are a training step of 16 scenes of an unrolled network with one stage on the 12x12
panel, by a process for either way: CPU time, the median of five steps, and how much memory the
process takes beyond what it has before there is a network, at its peak.
"""

import argparse
import multiprocessing
import re
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from documents import write_tables
from torch import Tensor

import trainer.covariance.dictionary as dictionary
from trainer.config import NetworkConfig, SceneConfig, TrainConfig
from trainer.covariance import NOISE_FLOOR, Observations, quadratic_forms
from trainer.covariance.compression import CompressedTable, compress_table
from trainer.covariance.products import CompressedProducts, DenseProducts, Products
from trainer.scenes import SearchGrid, search_grid, simulate
from trainer.training import TrainingLoop

DOCUMENT = Path(__file__).parents[1] / "docs" / "network.md"
SCENES = 16
POINTS = 512
REPETITIONS = 5
NEAREST_M, FARTHEST_M = {"16x16": 1.0, "24x24": 3.0}, {"6x6": 3.0}


def scene_of(panel: str) -> SceneConfig:
    """Return the scene of a panel, "12x12"."""
    across, up = map(int, panel.split("x"))
    return SceneConfig(
        num_horizontal=across,
        num_vertical=up,
        num_antennas=16,
        max_sources=5,
        range_min_m=NEAREST_M.get(panel, 0.5),
        range_max_m=FARTHEST_M.get(panel, 10.0),
    )


def timed(function: Callable[[], object]) -> float:
    """Return the CPU time of a call [s]."""
    started = time.process_time()
    function()
    return time.process_time() - started


def cost(products: Products, matrices: Tensor, powers: Tensor) -> float:
    """Return the CPU time of a power map and a mixture, forward and backward [s]."""
    matrices, powers = matrices.clone().requires_grad_(), powers.clone().requires_grad_()

    def once() -> None:
        products.power_map(matrices).sum().backward()
        products.mixture(powers).real.sum().backward()

    return min(timed(once) for _ in range(REPETITIONS))


def errors(grid: SearchGrid, products: Products, matrices: Tensor) -> tuple[float, float]:
    """Return the largest relative errors of maps and of mixtures."""
    generator = torch.Generator().manual_seed(1)
    chosen = torch.randperm(len(grid.steering), generator=generator)[:POINTS]
    steering = grid.steering[chosen].to(torch.complex128)
    exact = ((steering.conj() @ matrices.to(torch.complex128)) * steering).sum(-1).real
    of_map = (products.power_map(matrices)[:, chosen] - exact).norm(dim=-1) / exact.norm(dim=-1)
    weights = torch.rand(SCENES, len(chosen), generator=generator) ** 8
    powers = torch.zeros(SCENES, len(grid.steering))
    powers[:, chosen] = weights
    exact = (weights.unsqueeze(1) * steering.mT) @ steering.conj()
    apart = (products.mixture(powers) - exact).flatten(1).norm(dim=-1)
    return float(of_map.max()), float((apart / exact.flatten(1).norm(dim=-1)).max())


def grid_of(panel: str, dtype: torch.dtype = torch.float32) -> SearchGrid:
    """Return the grid of a panel's dictionary."""
    density = dictionary.POINTS_PER_BEAM, dictionary.PLANE_PHASE
    return search_grid(scene_of(panel), dtype, torch.device("cpu"), *density)


def compressed(panel: str, tolerance: float = dictionary.TOLERANCE) -> CompressedTable:
    """Return the compressed table of a panel's dictionary, in single precision."""
    return compress_table(grid_of(panel, torch.float64), tolerance, torch.float32)


def rows(panel: str, table_gb: float) -> list[str]:
    """Return the lines of a panel."""
    grid = grid_of(panel)
    size, points = grid.panel.num_elements, len(grid.steering)
    generator = torch.Generator().manual_seed(0)
    root = torch.randn(SCENES, size, 16, dtype=torch.complex64, generator=generator)
    matrices, powers = root @ root.mH, torch.rand(SCENES, points, generator=generator) ** 8
    gigabytes = points * size**2 * 4 / 1e9
    lines = []

    def line(name: str, make: Callable[[], Products]) -> None:
        started = time.process_time()
        products = make()
        setup = time.process_time() - started
        held = sum(buffer.nbytes for buffer in products.buffers()) / 1e6
        seconds = cost(products, matrices, powers)
        of_map, of_mixture = errors(grid, products, matrices)
        lines.append(
            f"| {panel} | {points:,} | {name} | {setup:.1f} | {held:,.0f} | {1e3 * seconds:,.0f} "
            f"| {of_map:.1e} | {of_mixture:.1e} |"
        )
        print(lines[-1], flush=True)

    if gigabytes <= table_gb:
        line("table", lambda: DenseProducts(grid.steering, dictionary.outer_products(grid)))
    else:
        lines.append(f"| {panel} | {points:,} | table | | {1e3 * gigabytes:,.0f} | | | |")
        print(lines[-1], flush=True)
    line("factors", lambda: CompressedProducts(compressed(panel)))
    return lines


def positivity(tolerance: float) -> str:
    """Return the line of a tolerance."""
    scene = scene_of("12x12")
    grid = grid_of("12x12")
    table = compressed("12x12", tolerance)
    products = CompressedProducts(table)
    generator = torch.Generator().manual_seed(0)

    def on_points(scenes: int, count: int) -> Tensor:
        powers = torch.zeros(scenes, len(grid.steering))
        chosen = torch.randint(len(grid.steering), (scenes, count), generator=generator)
        return products.mixture(powers.scatter_(1, chosen, 1 / count))

    least = float(torch.linalg.eigvalsh(on_points(400, 1)).min())
    scenes = simulate(scene, 48, snr_db=20.0, generator=generator, device="cpu")
    observations, noise = Observations.from_scenes(scenes), torch.full((48,), NOISE_FLOOR)
    failed = 0
    for count in (1, 2, 3, 5):
        forms = quadratic_forms(observations, on_points(48, count), noise)
        failed += int(forms.traces.isnan().sum())
    rows = sum(len(part.rows) for part in table.parts)
    return f"| {tolerance:.0e} | {rows:,} | {least:.4f} | {failed} of {4 * 48} |"


def step(largest_table: int) -> tuple[float, float]:
    """Return the CPU time of a training step [s], and the memory that it takes [MB].

    Args:
        largest_table: that is kept whole.
    """
    torch.set_num_threads(1)
    dictionary.LARGEST_TABLE = largest_table
    before = peak_mb()
    network = NetworkConfig("unrolled", width=16, stages=1)
    config = TrainConfig(scene=scene_of("12x12"), network=network, batch_size=SCENES)
    training = TrainingLoop(config, torch.device("cpu"))
    training.step()
    seconds = np.median([timed(training.step) for _ in range(5)])
    return float(seconds), peak_mb() - before


def peak_mb() -> float:
    """Return the most memory that this process has had, on Linux [MB]."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found, "Linux names it"
    return int(found[1]) * 1024 / 1e6


def main() -> None:
    """Print the table, and write it into docs/network.md if asked to."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--panels", nargs="+", default=["6x6", "8x8", "12x12", "16x16", "24x24"], metavar="CxR"
    )
    parser.add_argument("--table-gb", type=float, default=2.0, help="largest table [GB]")
    parser.add_argument("--tolerances", type=float, nargs="*", default=[1e-3, 1e-4, 1e-5])
    parser.add_argument("--write", action="store_true", help="write into docs/network.md")
    args = parser.parse_args()
    torch.set_num_threads(1)
    lines = [
        f"`python benchmarks/{shlex.join(sys.argv)}`",
        "",
        "| panel | points | products with | set-up/s | MB | ms | error of maps | of mixtures |",
        "|---|---|---|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    for panel in args.panels:
        lines += rows(panel, args.table_gb)
    lines += ["", "| tolerance | rows | least eigenvalue | not positive |", "|---|---|---|---|"]
    for tolerance in args.tolerances:
        lines.append(positivity(tolerance))
        print(lines[-1], flush=True)
    lines += ["", "| a training step on 12x12 | CPU-s | MB |", "|---|---|---|"]
    spawn = multiprocessing.get_context("spawn")
    for name, largest in (("table", 10**12), ("factors", dictionary.LARGEST_TABLE)):
        with spawn.Pool(1) as pool:
            seconds, memory = pool.apply(step, (largest,))
        lines.append(f"| {name} | {seconds:.2f} | {memory:,.0f} |")
        print(lines[-1], flush=True)
    if args.write:
        write_tables(DOCUMENT, {"products": "\n".join(lines)})


if __name__ == "__main__":
    main()
