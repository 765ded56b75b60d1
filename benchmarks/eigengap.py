"""Speed and soundness of the spectral backends against the founding loop of SVDs, in one run.

    python benchmarks/eigengap.py [--sizes 64 144 256 400] [--matrices 20000]
        [--only TABLE ...] [--no-write]

Timed is forward plus backward of a loss of B = 64 complex64 covariances, in rounds that visit
every contestant, so that load from elsewhere meets all. Times are the best of the rounds, the
speed-up is the ratio of the best, and its range that of the rounds. On a CPU everything runs on
one thread, and its CPU time counts; with a GPU everything is timed there too, by the clock. The
founding loop takes `torch.linalg.svd` of one sample after the other, its order corrected. `gram`
is given the factor, every other backend the dense R; multiplying R out is charged to nobody.

The tables between the markers of docs/eigengap.md are replaced by what was measured.
"""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from unittest.mock import patch

import eigengap_facts
import torch
from documents import write_tables
from torch import Tensor

from spaces.presets import FULL_SCENE
from trainer.config import TrainConfig
from trainer.intervals import bootstrap_mean
from trainer.networks import build_network
from trainer.scenes import Scenes, simulate
from trainer.spectral import decomposition, eigengap_loss, losses, spectrum
from trainer.spectral.spectrum_type import Spectrum
from trainer.training import eigengap_term, loss_terms

AS_IN_A_TRIAL = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    # or glibc hands every large tensor back to the kernel, to be faulted in again
    "MALLOC_MMAP_THRESHOLD_": "268435456",
    "MALLOC_TRIM_THRESHOLD_": "268435456",
    "MALLOC_TOP_PAD_": "67108864",
}
"""Environment variables."""

DOCS = Path(__file__).parent.parent / "docs" / "eigengap.md"
BATCH, RANK, SOURCES, SHIFT = 64, 21, 5, 1e-4
GUARD_ROUNDS = 40
TARGETS = {(144, "gram", "gap"): 25, (144, "gram", "subspace"): 18, (400, "gram", "gap"): 100}
GPU_TARGETS = {(144, "gram", "gap"): 100}


def founding_loop(covariances: Tensor, num_sources: Tensor) -> Tensor:
    """Return the loss as it was founded: sample by sample, with singular values in their own
    order."""
    total = covariances.new_zeros((), dtype=torch.float32)
    for covariance, k in zip(covariances, num_sources.tolist(), strict=True):
        values = torch.linalg.svd(covariance)[1]
        total = total + torch.relu(1.0 / k - (values[k - 1] - values[k]))
    return total / len(covariances)


def contestants(n: int, device: torch.device) -> dict[str, Callable[[], object]]:
    """Return forward and backward passes by name: `founding`, or `backend loss`."""
    g = torch.Generator().manual_seed(n)
    factor = torch.randn((BATCH, n, RANK), dtype=torch.complex64, generator=g)
    factor = (factor / torch.linalg.matrix_norm(factor)[:, None, None]).to(device)
    dense = factor @ factor.mH + SHIFT / n * torch.eye(n, device=device)
    k = torch.randint(1, SOURCES + 1, (BATCH,), generator=g)
    basis = torch.linalg.qr(torch.randn((BATCH, n, SOURCES), generator=g).to(torch.complex64))[0]
    basis = (basis * (torch.arange(SOURCES) < k[:, None, None])).to(device)
    k = k.to(device)
    factor.requires_grad_()
    dense.requires_grad_()

    def run(backend: str, definition: str) -> None:
        held = factor if backend == "gram" else dense
        found = (
            spectrum(factor=factor, shift=SHIFT / n, backend=backend)
            if backend == "gram"
            else spectrum(dense, backend=backend)
        )
        target = basis if definition == "subspace" else None
        margin = 1.0 if definition == "gap" else 0.0
        loss = eigengap_loss(found, k, definition=definition, margin=margin, target=target)
        torch.autograd.grad(loss.mean(), held)

    runs: dict[str, Callable[[], object]] = {
        "founding": lambda: torch.autograd.grad(founding_loop(dense, k), dense)
    }
    for backend in ("gram", "exact", "eigh", "svd", "masked"):
        for definition in ("gap", "subspace"):
            runs[f"{backend} {definition}"] = lambda b=backend, d=definition: run(b, d)
    return runs


def timed(run: Callable[[], object], device: torch.device, times: int = 1) -> float:
    """Return milliseconds of one run, mean of several."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    start = clock()
    for _ in range(times):
        run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return 1e3 * (clock() - start) / times


def race(
    runs: dict[str, Callable[[], object]], device: torch.device, rounds: int
) -> dict[str, list[float]]:
    """Return milliseconds of every contestant in every round, after one to warm up; quick ones
    run for some 25 ms in a round."""
    for run in runs.values():
        timed(run, device)
    # a clock of processor time may stand still in a quick run
    often = {n: min(20, round(25 / max(timed(run, device), 1))) or 1 for n, run in runs.items()}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(timed(run, device, often[name]))
    return times


def speed(sizes: Sequence[int], device: torch.device) -> str:
    """Return a table with one row per size and contestant."""
    rows = [
        "| N | contestant | gap ms | gap speed-up | projector ms | projector speed-up |",
        "|---|---|---|---|---|---|",
    ]
    targets = GPU_TARGETS if device.type == "cuda" else TARGETS
    for n in sizes:
        times = race(contestants(n, device), device, rounds=21 if n <= 144 else 7)
        base = times["founding"]
        rows.append(f"| {n} | founding loop | {min(base):.1f} | 1 | - | - |")
        for backend in ("gram", "exact", "eigh", "svd", "masked"):
            row = f"| {n} | {backend} |"
            for definition in ("gap", "subspace"):
                own = times[f"{backend} {definition}"]
                ratios = [b / t for b, t in zip(base, own, strict=True)]
                best = min(base) / min(own)
                row += f" {min(own):.1f} | {best:.1f} [{min(ratios):.1f}, "
                row += f"{max(ratios):.1f}]"
                if target := targets.get((n, backend, definition)):
                    row += f" (target {target}: {'met' if best >= target else 'missed'})"
                row += " |"
            rows.append(row)
        print("\n".join(rows[-6:]), flush=True)
    return "\n".join(rows)


def share_of_a_step(device: torch.device) -> str:
    """Return the eigengap term's share of a training step on the full preset's scene: the term,
    forward and backward, over simulation, network, losses and backward."""
    rows = ["| network | loss | step ms | term ms | share |", "|---" * 5 + "|"]
    for kind, definition, config in trainings():
        times = race(step_and_term(config, device), device, rounds=9)
        shares = [t / s for t, s in zip(times["term"], times["step"], strict=True)]
        rows.append(
            f"| {kind} | {definition} | {min(times['step']):.0f} | "
            f"{min(times['term']):.1f} | {min(times['term']) / min(times['step']):.1%} "
            f"[{min(shares):.1%}, {max(shares):.1%}] |"
        )
    return "\n".join(rows)


def guards_of_a_step(device: torch.device) -> str:
    """Return what the checks of R and target cost: the term with them less the term without, in
    the same round."""
    rows = [
        f"| network | loss | term ms | checks ms [95 %], n = {GUARD_ROUNDS} | share of a step |",
        "|---" * 5 + "|",
    ]
    for kind, definition, config in trainings():
        runs = step_and_term(config, device)
        step = min(race({"step": runs["step"]}, device, rounds=5)["step"])
        term = runs["term"]

        def bare(term: Callable[[], object] = term) -> None:
            with unchecked():
                term()

        times = race({"checked": term, "bare": bare}, device, GUARD_ROUNDS)
        cost = bootstrap_mean([c - b for c, b in zip(*times.values(), strict=True)])
        rows.append(
            f"| {kind} | {definition} | {min(times['checked']):.1f} | "
            f"{cost.mean:.2f} [{cost.low:.2f}, {cost.high:.2f}] | "
            f"{cost.mean / step:.3%} [{cost.low / step:.3%}, {cost.high / step:.3%}] |"
        )
    return "\n".join(rows)


@contextmanager
def unchecked() -> Iterator[None]:
    """Leave out the checks of what `spectrum` and `eigengap_loss` are given."""
    yes, one = torch.tensor(True), torch.tensor(1.0)
    none = {name: lambda *_: one for name in ("negative_share", "unloaded_trace", "basis_error")}
    with (
        patch.multiple(Spectrum, **none),
        patch.object(losses, "_sound", lambda *_: yes),
        patch.object(decomposition, "_is_hermitian", lambda *_: yes),
    ):
        yield


def trainings() -> Iterator[tuple[str, str, TrainConfig]]:
    """Yield network, definition and configuration of trainings on the full preset's scene."""
    networks = {"factor": {"network.rank": 8, "covariance.blend_bound": 0.3}, "dictionary": {}}
    margins = {"gap": {"eigengap.margin": 1.0}, "subspace": {"eigengap.margin_subspace": 0.0}}
    for kind, own in networks.items():
        for definition, margin in margins.items():
            yield (
                kind,
                definition,
                TrainConfig.from_params(
                    FULL_SCENE
                    | own
                    | margin
                    | {"network.kind": kind, "batch_size": BATCH}
                    | {"eigengap.weight": 0.1, "eigengap.definition": definition}
                ),
            )


def step_and_term(config: TrainConfig, device: torch.device) -> dict[str, Callable[[], object]]:
    """Return a training step short of the optimiser, and its eigengap term alone."""
    network = build_network(config).to(device)
    generator = torch.Generator(device).manual_seed(0)

    def draw() -> Scenes:
        return simulate(config.scene, BATCH, snr_db=0.0, generator=generator, device=device)

    def step() -> None:
        scenes = draw()
        loss_terms(network(scenes), scenes, config).total(config).backward()

    scenes = draw()
    with torch.no_grad():
        covariance = network(scenes)
    name = "matrix" if covariance.factor is None else "factor"
    covariance = dataclasses.replace(covariance, **{name: covariance.held.requires_grad_()})

    def term() -> None:
        eigengap_term(covariance, scenes, config).mean().backward()

    return {"step": step, "term": term}


def main() -> None:
    """Measure everything and write it into docs/eigengap.md."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 144, 256, 400], help="N")
    parser.add_argument("--matrices", type=int, default=20_000, help="adversarial ones, per dtype")
    parser.add_argument("--only", nargs="+", metavar="TABLE", help="measure these tables only")
    parser.add_argument("--no-write", action="store_true", help=f"leave {DOCS.name} as it is")
    args = parser.parse_args()
    torch.set_num_threads(1)
    measures: dict[str, Callable[[], str]] = {}
    for name in ["cpu"] + ["cuda"] * torch.cuda.is_available():
        measures[f"speed {name}"] = partial(on_device, name, partial(speed, args.sizes))
        measures[f"share {name}"] = partial(on_device, name, share_of_a_step)
        measures[f"guards {name}"] = partial(on_device, name, guards_of_a_step)
    measures["rates"] = partial(eigengap_facts.rates, args.matrices)
    measures |= eigengap_facts.FACTS
    tables: dict[str, str] = {}
    for name in args.only or measures:
        tables[name] = measures[name]()
        print(f"\n{name}\n{tables[name]}", flush=True)
    if not args.no_write:
        write_tables(DOCS, tables)


def on_device(name: str, measure: Callable[[torch.device], str]) -> str:
    """Return a table below a line with the device it was measured on."""
    title = torch.cuda.get_device_name() if name == "cuda" else "one CPU thread"
    return f"{title}, torch {torch.__version__}:\n\n{measure(torch.device(name))}"


if __name__ == "__main__":
    if not AS_IN_A_TRIAL.items() <= os.environ.items():
        os.environ.update(AS_IN_A_TRIAL)  # libraries read it when they are loaded
        os.execv(sys.executable, [sys.executable, *sys.argv])
    main()
