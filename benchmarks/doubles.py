"""Rate of doubles: K = 1, estimators told 2, and both estimates vouched for.

    python benchmarks/doubles.py [--scenes 400] [--methods sml lmmse_music lmmse_music+scoring]

Shares of scenes whose two estimates are both `resolved`, with 95 % Wilson intervals.
"""

import argparse

from trained import LOCAL_SCENE  # isort: skip  (sets threads)

import torch

from trainer.config import TrainConfig
from trainer.estimation import build_localiser
from trainer.intervals import wilson_share
from trainer.scenes import EvalScenes

SEED = 15_000_003
SNR_DB = (0.0, 10.0, 20.0)


def main() -> None:
    """Print the rate of each estimator at each SNR."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=400, help="per SNR")
    names = ["sml", "lmmse_music", "lmmse_music+scoring"]
    parser.add_argument("--methods", nargs="+", default=names)
    args = parser.parse_args()
    torch.set_num_threads(1)
    scene = TrainConfig.from_params(LOCAL_SCENE).scene
    told = torch.full((args.scenes,), 2)
    print("| told K = 2, of 1 | " + " | ".join(f"{snr:g} dB" for snr in SNR_DB) + " |")
    print("|---" * (1 + len(SNR_DB)) + "|")
    for name in args.methods:
        locate, cells = build_localiser(name, scene), []
        for snr_db in SNR_DB:
            scenes = EvalScenes(scene, SEED).batch(
                range(args.scenes), snr_db=snr_db, num_sources=1
            )
            found = locate(scenes, told)
            both = (found.resolved & found.active).sum(-1) == 2
            share = wilson_share(float(both.double().mean()), args.scenes)
            cells.append(f"{share.mean:.2f} [{share.low:.2f}, {share.high:.2f}]")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
