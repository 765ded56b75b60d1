"""A search whose trials begin with a model's weights: kept in the run, replayed, refused if other.

Trials run in this process (`tests.local_ray`).
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from search.records import RunStore
from search.run import main
from tests.local_ray import install
from tests.small_model import CONFIG, trained_model
from trainer.__main__ import main as trainer_main
from trainer.training import TrainState, find_model

STILL = 1e-30
"""Learning rate at which no weight changes."""
SMALL = (
    *("--preset", "smoke", "--scheduler", "none", "--trials", "2", "--name", "x"),
    *("--set", "epochs=1", "steps_per_epoch=1", "batch_size=4", "eigengap.term=off"),
    *("scene.num_horizontal=6", "scene.num_vertical=6", f"optimizer.learning_rate={STILL}"),
    *("evaluation.num_scenes=4", "evaluation.num_test_scenes=4"),
    *("evaluation.report_snr_db=0", "--range", "eps_psd=1e-5:1e-3:log"),
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """A model of another panel than the search's."""
    return find_model(trained_model(tmp_path_factory))


@pytest.fixture(scope="module")
def run(model, tmp_path_factory) -> Iterator[Path]:
    """A finished run of two trials that began with the model, which is gone since."""
    folder = tmp_path_factory.mktemp("begun")
    copy = shutil.copytree(model, folder / "model")
    with pytest.MonkeyPatch.context() as patch:
        install(patch)
        patch.setattr("search.driver.Baselines", lambda *_: SimpleNamespace(start=lambda: None))
        patch.setattr("search.driver.score_best", lambda *_: None)
        search = [*SMALL, "--start-from", str(copy), "--out", str(folder), "--no-preflight"]
        assert main([*search, "--max-concurrent", "1"]) == 0
        shutil.rmtree(copy)
        yield folder / "x"


def test_every_trial_begins_with_the_weights_of_the_model(run, model):
    weights = TrainState.load(model / "state.pt").network
    store = RunStore.open(run)
    trials = store.read("trials")
    assert set(trials["outcome"]) == {"completed"}
    for place in trials["checkpoint"]:
        state = TrainState.load(run / place / "state.pt")
        assert state.config.network.width == CONFIG["network.width"]
        assert state.config.scene.num_horizontal == 6 != CONFIG["scene.num_horizontal"]
        for name, weight in weights.items():
            torch.testing.assert_close(state.network[name], weight, rtol=0, atol=0)


def test_a_trial_is_replayed_bit_for_bit_from_the_runs_copy(run, capsys):
    assert trainer_main(["replay", str(run), "t0001"]) == 0
    assert "bit for bit" in capsys.readouterr().out


def test_the_run_is_extended_without_the_model_but_not_with_other_weights(run, capsys):
    assert main(["--resume", str(run), "--trials", "3", "--no-preflight"]) == 0
    kept = (run / "start.pt").read_bytes()
    (run / "start.pt").write_bytes(kept[:-1])
    try:
        assert main(["--resume", str(run), "--trials", "4", "--no-preflight"]) == 2
        assert "all trials of a run begin with the same weights" in capsys.readouterr().err
        (run / "start.pt").unlink()
        assert main(["--resume", str(run), "--trials", "4", "--no-preflight"]) == 2
        assert "start.pt is missing" in capsys.readouterr().err
    finally:
        (run / "start.pt").write_bytes(kept)


def test_the_models_network_is_not_to_be_changed(model, tmp_path, capsys):
    asked = [
        *SMALL,
        "--set",
        "network.width=8",
        "--start-from",
        str(model),
        "--out",
        str(tmp_path),
    ]
    assert main(asked) == 2
    assert "all trials have the model's network" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_plan_says_where_it_begins(model, tmp_path, capsys):
    asked = [*SMALL, "--start-from", str(model), "--out", str(tmp_path), "--dry-run"]
    assert main(asked) == 0
    assert f"the weights of {model}" in capsys.readouterr().out
