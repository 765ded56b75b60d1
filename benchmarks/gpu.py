"""All tables that want a GPU, filled by one command, in at most nine minutes.

    python benchmarks/gpu.py [--minutes 9] [--no-write] [--device cpu --quick]

Every part has a share of the time left, so that none takes that of the others, and writes its
table as soon as it is measured, below a line with the device, its driver and the versions. Rows
that its time does not allow are named with the reason; so is a part that has none, or that wants
Ray and Optuna where they are not installed. Times are of the wall clock, each once the GPU has
finished; ranges are those of the rounds. Without a GPU the exit code is 2. `--device cpu --quick`
runs the same code on little work, and writes nothing.
"""

import argparse
import dataclasses
import importlib.util
import itertools
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import eigengap
import torch
from documents import write_tables

from spaces.presets import DICTIONARY, FACTOR, FULL_SCENE, LOCAL_SCENE, UNROLLED
from trainer.config import SceneConfig, TrainConfig
from trainer.estimation import refined
from trainer.evaluation import classical_estimator, network_estimator, posterior_readout
from trainer.provenance import gpus
from trainer.scenes import EvalScenes, Scenes
from trainer.spectral.backend_check import ProblemSize, check_backend
from trainer.training import TrainingLoop, initial_network

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
CLUSTER, EIGENGAP = DOCS / "cluster.md", DOCS / "eigengap.md"
TINY = {"scene.num_horizontal": 4, "scene.num_vertical": 4, "scene.num_snapshots": 6}
NETWORKS = {"dictionary": DICTIONARY, "factor": FACTOR, "unrolled": UNROLLED}
SHARES = (0.25, 0.5, 1.0)
READOUT_SCENES = 1024
READOUT_SECONDS = 4.0
"""Longest measurement of one readout: it takes fewer scenes, and says how many, if need be."""
LEAST_ROUNDS, TIME_SHARE = 3, 0.25
"""Least rounds of a race, and the share of the time left that one may take."""
SEARCH_NEEDS = ("ray", "optuna")


class Skipped(Exception):
    """A part that is not measured, and why."""


@dataclass(frozen=True)
class Run:
    """Device, size and deadline of a measurement.

    Attributes:
        device: of torch.
        quick: little work, on which numbers mean nothing.
        deadline: of the monotonic clock [s]; that of a part is its own.
        address: of the Ray that searches use.
        write: whether documents are written.
    """

    device: torch.device
    quick: bool
    deadline: float
    address: str = "local"
    write: bool = False

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline; raises Skipped if it has passed."""
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise Skipped("the time is spent")
        return left

    @property
    def scene(self) -> dict[str, Any]:
        """Parameters of the full preset's scene; of a tiny one if quick."""
        return FULL_SCENE | (TINY | {"scene.max_sources": 2} if self.quick else {})

    def seconds(self, work: Callable[[], object]) -> float:
        """Return the seconds of one run of `work`, until the device has finished."""
        self.synchronize()
        started = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - started

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    @property
    def title(self) -> str:
        """The device, its driver and the versions, in a line."""
        on_gpu = self.device.type == "cuda"
        listed = dict.fromkeys(gpus() if on_gpu else [])  # name, driver; each kind once
        name = "; ".join(listed) or (
            torch.cuda.get_device_name() + ", driver unknown" if on_gpu else "one CPU thread"
        )
        cuda = f", CUDA {torch.version.cuda}" if on_gpu else ""
        return f"{name}{cuda}, torch {torch.__version__}:"


def table(header: str, rows: Iterator[str]) -> str:
    """Return a table of the rows that the time allows, and why others are missing.

    Raises:
        Skipped: if it allows none.
    """
    names = header.strip("|").split("|")
    lines = [header, "|---" * len(names) + "|"]
    try:
        for row in rows:
            lines.append(row)
    except Skipped as reason:
        if len(lines) == 2:
            raise
        lines += ["", f"The rows that follow were not measured: {reason}."]
    return "\n".join(lines)


def eigh_residuals(run: Run) -> str:
    """Check batched complex64 `eigh` against the bound of a stable eigensolver, by size."""
    rows = ["| N | batch | residual | orthonormality | bound of both | |", "|---" * 6 + "|"]
    sizes = [(12, 16)] if run.quick else [(16, 1024), (36, 1024), (64, 256), (144, 64), (256, 16)]
    for elements, batch in sizes:
        size = ProblemSize(elements, None, batch)
        found = check_backend("exact", size, torch.complex64, run.device)
        rows.append(
            f"| {elements} | {found.measured_batch} | {found.residual:.1e} | "
            f"{found.orthonormality:.1e} | {found.tolerance:.1e} | {found.fault or 'sound'} |"
        )
    return "\n".join(rows)


def training(run: Run) -> Iterator[str]:
    """Measure training steps, the optimiser's part included, by network and batch size."""
    terms = {
        "off": {},
        "gap": {"eigengap.weight": 0.1, "eigengap.definition": "gap", "eigengap.margin": 0.5},
    }
    batches = (4,) if run.quick else (64, 256, 1024)
    for batch, (kind, own), (name, term) in itertools.product(
        batches, NETWORKS.items(), terms.items()
    ):
        run.seconds_left  # noqa: B018 - raises when the time is spent
        device = {"device": run.device.type, "batch_size": batch}
        loop = TrainingLoop(TrainConfig.from_params(run.scene | own | term | device), run.device)
        if run.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            run.seconds(loop.step)  # kernels are loaded, memory is taken
            taken = [run.seconds(loop.step) for _ in range(2 if run.quick else 9)]
        except torch.OutOfMemoryError:
            yield f"| {kind} | {name} | {batch} | out of memory | - | - |"
            continue
        middle = statistics.median(taken)
        on_gpu = run.device.type == "cuda"
        peak = f"{torch.cuda.max_memory_allocated() / 2**30:.2f}" if on_gpu else "-"
        yield (
            f"| {kind} | {name} | {batch} | {1e3 * middle:.1f} "
            f"[{1e3 * min(taken):.1f}, {1e3 * max(taken):.1f}] | {batch / middle:,.0f} | {peak} |"
        )
        del loop


def readouts(run: Run) -> Iterator[str]:
    """Measure what a scene takes to be located, by readout, on the local preset's scene.

    Networks have their first weights, which costs what trained ones do.
    """
    params = LOCAL_SCENE | (TINY if run.quick else {}) | UNROLLED | {"device": run.device.type}
    config = TrainConfig.from_params(params)
    device = str(run.device)
    network = initial_network(config).to(run.device).eval()
    music = network_estimator(network, config.scene, device)
    ways: dict[str, Callable[[Scenes], object]] = {
        "LMMSE, MUSIC": classical_estimator("lmmse_music", config.scene, device),
        "network": network,
        "network, MUSIC": music,
        **{
            f"network, MUSIC, {how}": _refined(music, config.scene, device, how)
            for how in ("scoring", "judged")
        },
        "posterior, K told": lambda s: posterior_readout(s, s.sources.num_sources, config.scene),
        "posterior, K asked": lambda s: posterior_readout(s, None, config.scene),
        "stochastic ML": classical_estimator("sml", config.scene, device),
    }
    most, few = (2, 2) if run.quick else (READOUT_SCENES, 64)
    scenes = EvalScenes(config.scene, 0).batch(range(most), snr_db=0.0, device=run.device)
    for name, way in ways.items():
        work = torch.no_grad()(way)
        some = scenes.take(slice(0, few))
        work(some)
        each = run.seconds(lambda w=work, s=some: w(s)) / few  # type: ignore[misc]
        size = max(few, min(most, int(min(READOUT_SECONDS, run.seconds_left / 4) / each)))
        part = scenes.take(slice(0, size))
        taken = [run.seconds(lambda w=work, p=part: w(p)) for _ in range(3)]  # type: ignore[misc]
        low, middle, high = (1e3 * t / size for t in sorted(taken))
        yield f"| {name} | {size} | {middle:.3g} [{low:.3g}, {high:.3g}] |"


def _refined(
    music: Callable[[Scenes], Any], scene: SceneConfig, device: str, how: str
) -> Callable[[Scenes], object]:
    locate = refined(lambda scenes, _: music(scenes), scene, device, how)
    return lambda scenes: locate(scenes, scenes.sources.num_sources)


def with_rounds(measure: Callable[[torch.device], str], run: Run) -> str:
    """Measure a table of benchmarks/eigengap.py in as many of its rounds as the time allows, on a
    small scene if quick.

    Raises:
        Skipped: if it does not allow `LEAST_ROUNDS`.
    """
    race = eigengap.race

    def timely(
        runs: dict[str, Callable[[], object]], device: torch.device, rounds: int
    ) -> dict[str, list[float]]:
        warm_up = sum(run.seconds(each) for each in runs.values())
        each = sum(run.seconds(each) for each in runs.values())
        fitting = int((TIME_SHARE * run.seconds_left - warm_up) / max(each, 1e-9))
        if fitting < LEAST_ROUNDS:
            raise Skipped(f"a round takes {each:.0f} s")
        return race(runs, device, min(rounds, LEAST_ROUNDS if run.quick else fitting))

    small = {"FULL_SCENE": run.scene} | ({"BATCH": 4, "RANK": 6} if run.quick else {})
    with patch.object(eigengap, "race", timely), patch.multiple(eigengap, **small):
        return measure(run.device)


def founding_ratio(run: Run) -> str:
    """Compare the backends with the founding loop, by size, as far as the time goes."""
    lines: list[str] = []
    for size in (12,) if run.quick else (64, 144, 256, 400):
        try:
            found = with_rounds(partial(eigengap.speed, [size]), run).split("\n")
        except Skipped as reason:
            if not lines:
                raise
            return "\n".join([*lines, "", f"Not measured from N = {size} on: {reason}."])
        lines += found[2:] if lines else found
    return "\n".join(lines)


def throughput(run: Run) -> None:
    """Fill the table of scenes per second in docs/baselines.md, by its own script."""
    if run.quick:
        command = ("--scene", "local", "--rounds", "1", "--seconds", "0.01", "--no-write")
    else:
        kept = () if run.write else ("--no-write",)
        command = ("--scene", "full", "--rounds", "3", *kept)
    print(_ran(run, "benchmarks/throughput.py", "--device", run.device.type, *command))


def searches(run: Run) -> Iterator[tuple[str, list[str]]]:
    """Yield names of searches and their arguments: the smoke preset, then trials by GPU share."""
    if run.quick:
        tiny = ("evaluation.num_scenes=2", "evaluation.num_test_scenes=2", "steps_per_epoch=1")
        yield "smoke", ["--preset", "smoke", "--trials", "2", "--epochs", "1", "--set", *tiny]
        return
    yield "smoke", ["--preset", "smoke"]
    for share in SHARES if run.device.type == "cuda" else ():
        sized = ["--trials", f"{2 / share:.0f}", "--gpus-per-trial", f"{share:g}"]
        alike = ["--scheduler", "none", "--epochs", "4", "--set", "batch_size=256"]
        yield f"trials on {share:g} of a GPU", ["--preset", "smoke", *sized, *alike]


def trials_of_searches(run: Run) -> Iterator[str]:
    """Run searches, and count their trials and the seconds of them."""
    missing = [name for name in SEARCH_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise Skipped(f"{' and '.join(missing)} not installed")
    import pandas as pd

    with tempfile.TemporaryDirectory() as out:
        for number, (name, words) in enumerate(searches(run)):
            place = ("--out", out, "--name", f"s{number}", "--address", run.address)
            _ran(run, "-m", "search.run", *words, *place)
            trials = pd.read_parquet(Path(out, f"s{number}", "trials"))
            outcomes = ", ".join(f"{n} {o}" for o, n in trials["outcome"].value_counts().items())
            span = trials["ended"].max() - trials["started"].min()
            seconds = span.total_seconds() if hasattr(span, "total_seconds") else float(span)
            yield (
                f"| {name} | {len(trials)} | {outcomes} | {trials['seconds'].median():.1f} | "
                f"{3600 * len(trials) / seconds:,.0f} |"
            )


def _ran(run: Run, *command: str) -> str:
    """Run a Python program of the project until the deadline; return what it printed.

    Raises:
        Skipped: if it takes longer.
        RuntimeError: if it fails; the message has the end of what it printed.
    """
    words = [sys.executable, *command]
    try:
        done = subprocess.run(
            words, cwd=ROOT, timeout=run.seconds_left, capture_output=True, text=True, check=False
        )
    except subprocess.TimeoutExpired:
        raise Skipped(f"{' '.join(command[:2])} was stopped when the time was spent") from None
    if done.returncode:
        said = f"{done.stdout[-500:]}\n{done.stderr[-2000:]}"
        raise RuntimeError(f"{' '.join(words)} failed:\n{said}")
    return done.stdout


def parts(run: Run) -> dict[str, tuple[Path, Callable[[], str | None]]]:
    """Return the tables, the most wanted first: name -> document, measurement."""
    steps = "| network | eigengap | batch | ms a step | scenes/s | peak memory GiB |"
    found = "| search | trials | outcomes | seconds of a trial | trials an hour |"
    ways = "| readout | batch | ms a scene |"
    return {
        "gpu eigh": (CLUSTER, partial(eigh_residuals, run)),
        "share cuda": (EIGENGAP, partial(with_rounds, eigengap.share_of_a_step, run)),
        "speed cuda": (EIGENGAP, partial(founding_ratio, run)),
        "gpu training": (CLUSTER, lambda: table(steps, training(run))),
        "gpu readouts": (CLUSTER, lambda: table(ways, readouts(run))),
        "gpu searches": (CLUSTER, lambda: table(found, trials_of_searches(run))),
        "guards cuda": (EIGENGAP, partial(with_rounds, eigengap.guards_of_a_step, run)),
        "throughput full cuda": (DOCS / "baselines.md", partial(throughput, run)),
    }


SECONDS = {"gpu eigh": 40, "share cuda": 40, "speed cuda": 90, "guards cuda": 40}
SECONDS |= {"gpu training": 70, "gpu readouts": 70, "gpu searches": 120}
SECONDS["throughput full cuda"] = 70
"""Shares of the nine minutes; what a part leaves, those after it have."""


def in_time(run: Run, names: Sequence[str]) -> Iterator[tuple[str, Run]]:
    """Yield names of parts with what they run on: each may take its share of what is left."""
    for number, name in enumerate(names):
        now, rest = time.monotonic(), sum(SECONDS[each] for each in names[number:])
        share = SECONDS[name] / rest * max(0.0, run.deadline - now)
        yield name, dataclasses.replace(run, deadline=now + share)


def main() -> int:
    """Fill every table; return 2 without a GPU, 1 if a part failed, else 0."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--minutes", type=float, default=9.0, help="longest time in all")
    parser.add_argument("--quick", action="store_true", help="little work: does it run?")
    parser.add_argument("--only", nargs="+", metavar="TABLE", help="measure these tables only")
    parser.add_argument("--address", default="local", help="of a Ray; default: one of its own")
    parser.add_argument("--no-write", action="store_true", help="leave docs/ as it is")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print(
            "benchmarks/gpu.py wants a GPU, but PyTorch sees none here; "
            "`--device cpu --quick` tries its code.",
            file=sys.stderr,
        )
        return 2
    torch.set_num_threads(1)
    deadline = time.monotonic() + 60 * options.minutes
    write = not (options.no_write or options.quick or options.device == "cpu")
    run = Run(torch.device(options.device), options.quick, deadline, options.address, write)
    failed = False
    for name, part in in_time(run, options.only or list(parts(run))):
        document, measure = parts(part)[name]
        started = time.monotonic()
        try:
            part.seconds_left  # noqa: B018 - raises when the time is spent
            found = measure()
        except Skipped as reason:
            print(f"\n{name}: skipped, {reason}", flush=True)
            continue
        except RuntimeError as error:  # the other tables are wanted all the same
            print(f"\n{name}: FAILED, {error}", flush=True)
            failed = True
            continue
        text = f"{run.title}\n\n{found}" if found else f"by its script, for {document.name}"
        print(f"\n{name} ({time.monotonic() - started:.0f} s)\n{text}", flush=True)
        if found and run.write:
            write_tables(document, {name: text})
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
