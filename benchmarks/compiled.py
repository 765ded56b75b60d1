"""Cost of a training step, eager and with `torch.compile`, in turn, in one run.

    python benchmarks/compiled.py [--networks dictionary unrolled:2] [--steps 20] [--device cuda]

Both trainings begin with the same weights and draw the same scenes. On a CPU everything runs on
one thread, and times are CPU time, the compiler's processes included; on a GPU they are those of
a clock on the wall. After `pays after` steps the time that compiling took is saved; losses are
those of the last step.
"""

import argparse
import os
import time

os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # in this process and its children, not a pool

from trained import config_of  # isort: skip  (sets threads)

import numpy as np
import torch
from torch import nn

from trainer.training import CLIP_NORM, TrainingLoop


def now(device: str) -> float:
    """Return seconds: on a GPU of the clock, once it has finished; else of CPU time."""
    if device == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    return sum(os.times()[:4])  # also of children that have ended


def step(training: TrainingLoop, device: str) -> tuple[float, float]:
    """Take an optimiser step; return its seconds and the loss before it."""
    scenes = training.draw()
    started = now(device)
    training.optimizer.zero_grad(set_to_none=True)
    loss = training.network(scenes).nmse(scenes).mean()
    loss.backward()
    nn.utils.clip_grad_norm_(training.network.parameters(), CLIP_NORM)
    training.optimizer.step()
    return now(device) - started, float(loss.detach())


def main() -> None:
    """Print the seconds of both."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--networks", nargs="+", default=["dictionary", "unrolled:2"])
    parser.add_argument("--steps", type=int, default=20, help="of either, after the first")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(
        "| network | compiling / s | step eager / ms | compiled / ms | pays after | last losses |"
    )
    print("|---|---|---|---|---|---|")
    for name in args.networks:
        config = config_of("local", name, 0, 1, args.device, batch_size=64)
        eager, compiled = (TrainingLoop(config, torch.device(args.device)) for _ in range(2))
        compiled.network = torch.compile(compiled.network)
        first = [step(each, args.device)[0] for each in (eager, compiled)]
        rows = [[step(each, args.device) for each in (eager, compiled)] for _ in range(args.steps)]
        (slow, fast), losses = np.median(rows, axis=0)[:, 0], [loss for _, loss in rows[-1]]
        cost = first[1] - fast
        pays = f"{cost / (slow - fast):.0f} steps" if fast < slow else "never"
        print(
            f"| {name} | {cost:.0f} | {1e3 * slow:.0f} | {1e3 * fast:.0f} | {pays} | "
            f"{losses[0]:.5f}, {losses[1]:.5f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
