"""Trained networks and their scores, kept on disk: a benchmark that was interrupted goes on.

A training is known by its configuration, a score by that, the estimator and the scenes. Neither
knows the code: after a change to the networks, the trainer or the estimators, delete the folder.
"""

import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path

# before NumPy is loaded: its BLAS reads them once
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MKL_NUM_THREADS"] = "1"

import numpy as np
import torch
from torch import nn

from spaces.presets import FULL_SCENE, LOCAL_SCENE
from trainer.config import TrainConfig
from trainer.estimation import Estimates
from trainer.evaluation import Conditions, Estimator, evaluate
from trainer.scenes import Scenes
from trainer.training import TrainState, restore_network, train

SCENES = {"local": LOCAL_SCENE, "full": FULL_SCENE}
FOLDER = Path("runs/benchmark")


def config_of(
    scene: str, network: str, seed: int, epochs: int, device: str, **more: object
) -> TrainConfig:
    """Return the training of `dictionary[:<width>]`, or of `unrolled:<stages>[:<width>]`; width
    16."""
    kind, *sizes = network.split(":")
    stages = sizes.pop(0) if kind == "unrolled" else None
    params = SCENES[scene] | {"network.kind": kind, "seed": seed, "epochs": epochs}
    params["network.width"] = int(sizes.pop(0)) if sizes else 16
    if stages is not None:
        params["network.stages"] = int(stages)
    # the benchmark scores on scenes of its own: nothing is spent on those of a search
    spent_on_search = {"evaluation.num_scenes": 1, "evaluation.num_test_scenes": 1}
    return TrainConfig.from_params(params | spent_on_search | {"device": device} | more)


def trained(config: TrainConfig, device: str, folder: Path = FOLDER) -> tuple[nn.Module, float]:
    """Return a network after its last epoch, and the CPU seconds that training it took."""
    folder.mkdir(parents=True, exist_ok=True)
    done, partial = (folder / f"{config.digest}.{name}" for name in ("pt", "partial.pt"))
    clock = folder / f"{config.digest}.seconds"
    if not done.exists():
        state = TrainState.load(partial) if partial.exists() else None
        spent = float(clock.read_text()) if state else 0.0
        started = time.process_time()
        for report in train(config, resume=state):
            report.state.save(partial)
            clock.write_text(f"{spent + time.process_time() - started}")
        partial.rename(done)
    return restore_network(done, torch.device(device))[1], float(clock.read_text())


@dataclass(frozen=True)
class Scores:
    """One estimator on a benchmark's scenes, an entry per scene and condition.

    Attributes:
        milliseconds: CPU time of the estimator per scene, median over batches.
        told: share of scenes whose K the eigenvalues told; NaN where nobody asked.
    """

    scene_id: np.ndarray
    snr_db: np.ndarray
    num_sources: np.ndarray
    capped_error: np.ndarray
    success: np.ndarray
    milliseconds: np.ndarray
    told: np.ndarray

    def per_scene(
        self, column: str, snr_db: tuple[float, ...], counts: tuple[int, ...] | None = None
    ) -> np.ndarray:
        """Return the mean over SNRs and source numbers of every scene."""
        chosen = np.isin(self.snr_db, snr_db)
        if counts is not None:
            chosen &= np.isin(self.num_sources, counts)
        ids, values = self.scene_id[chosen], getattr(self, column)[chosen]
        return np.bincount(ids, values) / np.bincount(ids)


def place(name: str, conditions: Conditions, folder: Path = FOLDER) -> Path:
    """Return the file that keeps the scores of an estimator under these conditions."""
    where = f"{conditions}{name}"
    return folder / f"{hashlib.sha256(where.encode()).hexdigest()[:16]}.npz"


def scores(
    name: str, estimate: Estimator, conditions: Conditions, folder: Path = FOLDER
) -> Scores:
    """Score an estimator, or read what was scored before under this name and conditions."""
    folder.mkdir(parents=True, exist_ok=True)
    file = place(name, conditions, folder)
    if not file.exists():
        spent: list[float] = []

        def measured(scenes: Scenes) -> Estimates:
            started = time.process_time()
            estimates = estimate(scenes)
            spent.append((time.process_time() - started) / scenes.batch_size)
            return estimates

        found = evaluate(measured, name, conditions, bound=False)
        told = [row.source_number_accuracy for row in found.rows]
        each = found.scenes
        assert each.success is not None, "an estimator has a success rate"
        partial = file.with_name(f".{file.name}")
        np.savez(
            partial,
            scene_id=each.scene_id,
            snr_db=each.snr_db,
            num_sources=each.num_sources,
            capped_error=each.capped_error,
            success=each.success,
            milliseconds=np.array(np.median(spent) * 1e3),
            told=np.array([np.nan if t is None else t for t in told]),
        )
        partial.rename(file)
    with np.load(file) as arrays:
        return Scores(**arrays)
