"""Cost of a network by reference beside the same one built in, as epochs in pairs, in one process.

    python benchmarks/own_network.py [--pairs 40]

Both trainings draw the same scenes and learn the same weights, which is checked; what differs is
that the network by reference is held to the contract of docs/own_code.md in every forward. Times
are CPU seconds of an epoch of 20 steps and its validation, on one thread.
"""

import argparse
import os
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from trainer.config import TrainConfig
from trainer.intervals import bootstrap_mean
from trainer.training import TrainingLoop
from trainer.user_code import with_hashes

KINDS = ("dictionary", "trainer.networks.dictionary_network:DictionaryNetwork")


def main() -> None:
    """Print the mean relative difference of the pairs with its 95 % interval."""
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--pairs", type=int, default=40)
    pairs = p.parse_args().pairs
    torch.set_num_threads(1)
    fixed = {"epochs": pairs + 2, "network.width": 32}  # without the first, and the evaluation
    configs = [TrainConfig.from_params(with_hashes(fixed | {"network.kind": k})) for k in KINDS]
    trainings = [TrainingLoop(each, torch.device("cpu")).reports() for each in configs]
    seconds: list[list[float]] = []
    for pair in range(pairs + 1):
        took, found = [0.0, 0.0], {}
        for each in (0, 1) if pair % 2 else (1, 0):  # neither is always the first
            began = time.process_time()
            report = next(trainings[each])
            took[each] = time.process_time() - began
            found[each] = (report.losses, report.capped_error)
        assert found[0] == found[1], "the same network learns the same"
        seconds.append(took)
    more = bootstrap_mean([own / built_in - 1 for built_in, own in seconds[1:]])
    epoch = sum(built_in for built_in, _ in seconds[1:]) / pairs
    print(
        f"an epoch takes {epoch:.2f} s of CPU; by reference {more.mean:+.2%} "
        f"[{more.low:+.2%}, {more.high:+.2%}], {pairs} pairs"
    )


if __name__ == "__main__":
    main()
