"""Networks against stochastic ML and MUSIC, on the same fresh scenes, in one run.

    python benchmarks/accuracy.py [--scene local|full] [--networks dictionary unrolled:2]
        [--seeds 0 1 2] [--epochs 30] [--scenes 512] [--device cpu|cuda]

Every network is trained from scratch with every seed, scored with MUSIC on scenes that no training
and no search has seen, and compared with stochastic ML scene by scene. A scene is the unit of
chance: its errors at all SNRs and source numbers are averaged first. On a CPU everything runs on
one thread, and times per scene are CPU time, median over batches.
"""

import argparse
import os
import statistics
import time

# before NumPy is loaded: its BLAS reads them once
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
import torch

from spaces.presets import FULL_SCENE, LOCAL_SCENE
from trainer.config import TrainConfig
from trainer.estimates import Estimates
from trainer.evaluation import Conditions, Scored, classical, network_estimate, score
from trainer.intervals import Interval, bootstrap_mean, paired_difference
from trainer.loop import train
from trainer.network import build
from trainer.scene import Scenes
from trainer.scoring import Estimate

SCENES = {"local": LOCAL_SCENE, "full": FULL_SCENE}
SNR_DB = (-10.0, -5.0, 0.0)
OBJECTIVE_SNR_DB = (-5.0, 0.0)
FRESH_SEED = 7_000_003
"""Of the scenes: not one of `EvaluationConfig`."""
REFERENCE = "sml"
CLASSICAL = (REFERENCE, "lmmse_beamformer", "lmmse_music", "pinv_music")


def config_of(scene: str, network: str, seed: int, epochs: int, device: str) -> TrainConfig:
    """A training of `dictionary`, or of `unrolled:<stages>`."""
    kind, _, stages = network.partition(":")
    params = SCENES[scene] | {"network.kind": kind, "seed": seed, "epochs": epochs}
    if stages:
        params["network.stages"] = int(stages)
    # the benchmark scores on scenes of its own: nothing is spent on those of a search
    spent_on_search = {"evaluation.num_scenes": 1, "evaluation.num_test_scenes": 1}
    return TrainConfig.from_params(params | spent_on_search | {"device": device})


def trained(config: TrainConfig, device: str) -> tuple[Estimate, float]:
    """MUSIC on a trained network, and the CPU seconds that training took."""
    started = time.process_time()
    *_, last = train(config)
    seconds = time.process_time() - started
    network = build(config).to(device)
    network.load_state_dict(last.state.network)
    return network_estimate(network.eval(), config.scene, device), seconds


def timed(estimate: Estimate, name: str, conditions: Conditions) -> tuple[Scored, float]:
    """Scores, and CPU milliseconds per scene of the estimator alone, median over batches."""
    spent = []

    def measured(scenes: Scenes) -> Estimates:
        started = time.process_time()
        estimates = estimate(scenes)
        spent.append((time.process_time() - started) / scenes.batch_size)
        return estimates

    scored = score(measured, name, conditions, bound=False)
    return scored, statistics.median(spent) * 1e3


def per_scene(scored: Scored, column: str, snr_db: tuple[float, ...]) -> np.ndarray:
    """Mean over SNRs and source numbers of every scene."""
    errors = scored.scenes
    chosen = np.isin(errors.snr_db, snr_db)
    ids, values = errors.scene_id[chosen], getattr(errors, column)[chosen]
    return np.bincount(ids, values) / np.bincount(ids)


def shown(interval: Interval, sign: str = "") -> str:
    """Mean and interval."""
    return f"{interval.mean:{sign}.3f} [{interval.low:{sign}.3f}, {interval.high:{sign}.3f}]"


def report(name: str, scored: Scored, reference: Scored, milliseconds: float) -> None:
    """A row of the table."""
    objective, weak = OBJECTIVE_SNR_DB, SNR_DB[:1]
    error = bootstrap_mean(per_scene(scored, "capped_error", objective))
    columns = [shown(error)]
    for snr_db in (objective, weak):
        pair = (per_scene(x, "capped_error", snr_db) for x in (scored, reference))
        columns.append("" if scored is reference else shown(paired_difference(*pair), "+"))
    success = bootstrap_mean(per_scene(scored, "success", SNR_DB))
    columns.append(shown(success))
    print(f"{name:<22}", *(f"{c:<24}" for c in columns), f"{milliseconds:8.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scene", choices=SCENES, default="local")
    parser.add_argument(
        "--networks", nargs="+", default=["dictionary", "unrolled:2", "unrolled:4"]
    )
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30, help="of 20 steps of 64 scenes")
    parser.add_argument("--scenes", type=int, default=512, help="per SNR and source number")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    configs = {
        (network, seed): config_of(args.scene, network, seed, args.epochs, args.device)
        for network in args.networks
        for seed in args.seeds
    }
    scene = next(iter(configs.values())).scene
    conditions = Conditions(scene, FRESH_SEED, SNR_DB, args.scenes, args.device)
    print(f"{args.scene}: {args.scenes} scenes for each of {len(conditions.points())} conditions")
    heads = ["capped error -5, 0 dB", "minus sml's", "minus sml's at -10 dB", "mean success"]
    print(f"{'':<22}", *(f"{h:<24}" for h in heads), "ms/scene", flush=True)
    reference, milliseconds = timed(
        classical(REFERENCE, scene, args.device), REFERENCE, conditions
    )
    report(REFERENCE, reference, reference, milliseconds)
    for name in CLASSICAL[1:]:
        scored, milliseconds = timed(classical(name, scene, args.device), name, conditions)
        report(name, scored, reference, milliseconds)
    for (network, seed), config in configs.items():
        estimate, seconds = trained(config, args.device)
        scored, milliseconds = timed(estimate, network, conditions)
        report(f"{network}, seed {seed}", scored, reference, milliseconds)
        print(f"{'':<22} trained in {seconds:.0f} CPU-s", flush=True)


if __name__ == "__main__":
    main()
