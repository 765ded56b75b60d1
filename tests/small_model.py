"""A model folder for tests, with few weights and little training, and scenes for it."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from trainer.__main__ import main
from trainer.config import SceneConfig
from trainer.evaluation import confidence
from trainer.scenes.measurement import Scenes
from trainer.scenes.simulation import EvalScenes

SCENE = SceneConfig(num_horizontal=5, num_vertical=4, num_antennas=8, num_snapshots=12)
CONFIG = {
    **{f"scene.{name}": value for name, value in asdict(SCENE).items()},
    "network.kind": "unrolled",
    "network.stages": 1,
    "network.width": 4,
    "epochs": 2,
    "steps_per_epoch": 2,
    "batch_size": 8,
    "evaluation.num_scenes": 4,
    "evaluation.num_test_scenes": 8,
    "evaluation.report_snr_db": [-5.0, 0.0],
}


def trained_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small training, for a fixture."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "asked.json").write_text(json.dumps(CONFIG))
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(confidence, "SCENES", confidence.BATCH_SIZE)  # calibrated on few scenes
        assert main(["train", "--config", str(folder / "asked.json"), "--out", str(out)]) == 0
    return out


def scenes_of(
    scene: SceneConfig = SCENE, count: int | None = 1, snr_db: float = 25.0, size: int = 6
) -> Scenes:
    """Return scenes of one seed; `count` None mixes numbers of sources."""
    return EvalScenes(scene, 11).batch(range(size), snr_db=snr_db, num_sources=count)
